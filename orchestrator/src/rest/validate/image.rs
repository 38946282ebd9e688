//! The grammar of an image's name: `[host[:port]/]path[:tag][@digest]`.

/// The longest name without tag and digest.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// Why `image` names no image; `None` when it does.
pub(super) fn mistake(image: &str) -> Option<&'static str> {
    if image.is_empty() {
        return Some("it is empty");
    }
    if image.contains("://") {
        return Some("leave the scheme out");
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Some("the digest after `@` is `sha256:` and 64 hexadecimal digits");
    }
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (name, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Some("the tag after `:` is at most 128 of letters, digits, `_`, `.` and `-`");
    }
    if name.len() > LONGEST_NAME {
        return Some("the name is longer than 255 characters");
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => (Some(host), path),
        Some(_) | None => (None, name),
    };
    if host.is_some_and(|host| !is_host(host)) {
        return Some("the part before the first `/` is no host name with an optional port");
    }
    if !path.split('/').all(is_path_part) {
        return Some("between `/` stand small letters and digits, parted by `.`, `_`, `__` or dashes");
    }
    None
}

fn is_digest(digest: &str) -> bool {
    let Some(hex) = digest.strip_prefix("sha256:") else { return false };
    hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_tag(tag: &str) -> bool {
    (1..=LONGEST_TAG).contains(&tag.len())
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && !tag.starts_with(['.', '-'])
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(is_label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Runs of small letters and digits with one separator between two of them.
fn is_path_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(|byte| is_word(*byte));
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_well(part.as_bytes().first())
        && ends_well(part.as_bytes().last())
        && separators
            .into_iter()
            .all(|it| matches!(it, "" | "." | "_" | "__") || it.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_what_is_none() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for good in [
            "nginx",
            "nginx:1.27-alpine",
            "library/nginx",
            "ghcr.io/owner/app_name:v1",
            "localhost/app",
            "localhost:5000/a/b__c/d--e:latest",
            "registry.local:443/x",
            &format!("app@{digest}"),
            &format!("app:tag@{digest}"),
        ] {
            assert_eq!(mistake(good), None, "{good}");
        }
        let long = "a".repeat(5000);
        for bad in [
            "",
            "UPPER/Case",
            "a:b:c",
            "http://x",
            &long,
            "app:a tag",
            "app@sha256:abc",
            "app@md5:0",
            "app:",
            "/app",
            "app/",
            "a//b",
            "a..b",
            "a_-b",
            "-a",
            "host.tld:0/app",
            "-host.tld/app",
            "app:.x",
            "a\r\nb",
            "é",
        ] {
            assert!(mistake(bad).is_some(), "{bad:.40}");
        }
    }
}
