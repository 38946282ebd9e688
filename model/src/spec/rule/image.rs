//! Image references: `[host[:port]/]path[:tag][@digest]`, checked part by part, so that the message can name the part.

use super::{Verdict, shown};

/// The longest name, without tag and digest.
const LONGEST_NAME: usize = 255;
/// The longest tag.
const LONGEST_TAG: usize = 128;

/// Checks a reference against the grammar that registries share.
pub fn image(reference: &str) -> Verdict {
    if reference.is_empty() {
        return Err("the image is empty".to_owned());
    }
    let wrong = |what: &str| Err(format!("`{}` is not an image: {what}", shown(reference)));
    if reference.contains("://") {
        return wrong("leave out the `https://`");
    }
    if let Some(odd) = reference.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return wrong(&format!("it holds the character `{}`", odd.escape_default()));
    }
    let (named, digest) = match reference.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (reference, None),
    };
    if let Some(digest) = digest
        && let Err(what) = check_digest(digest)
    {
        return wrong(&what);
    }
    let (path, tag) = split_tag(named);
    if path.len() > LONGEST_NAME {
        return wrong(&format!("its name is longer than {LONGEST_NAME} characters"));
    }
    if let Some(tag) = tag
        && let Err(what) = check_tag(tag)
    {
        return wrong(&what);
    }
    match check_path(path) {
        Ok(()) => Ok(()),
        Err(what) => wrong(&what),
    }
}

/// The tag is after the last colon, if no slash follows: else that colon belongs to the port of the host.
fn split_tag(named: &str) -> (&str, Option<&str>) {
    match named.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (named, None),
    }
}

fn check_digest(digest: &str) -> Verdict {
    let (algorithm, hex) = digest.split_once(':').unwrap_or((digest, ""));
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(format!("the digest `{}` is not sha256:…", shown(digest))),
    };
    let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hex.len() == length && is_hex {
        Ok(())
    } else {
        Err(format!("the digest must have {length} characters of 0-9 and a-f after `{algorithm}:`"))
    }
}

fn check_tag(tag: &str) -> Verdict {
    let starts = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let rest = tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if starts && rest && tag.len() <= LONGEST_TAG {
        Ok(())
    } else {
        Err(format!(
            "the tag `{}` may hold 1 to {LONGEST_TAG} of a-z, A-Z, 0-9, _, . and -, and begins with no . or -",
            shown(tag)
        ))
    }
}

fn check_path(path: &str) -> Verdict {
    let mut parts: Vec<&str> = path.split('/').collect();
    let is_host = |part: &str| {
        part == "localhost" || part.contains(['.', ':']) || part.chars().any(|c| c.is_ascii_uppercase())
    };
    if parts.len() > 1
        && let Some(host) = parts.first().copied().filter(|part| is_host(part))
    {
        check_host(host)?;
        parts.remove(0);
    }
    for part in &parts {
        check_component(part)?;
    }
    Ok(())
}

fn check_host(host: &str) -> Verdict {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
            ("ip", after.strip_prefix(':'))
        }
        _ => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if !name.split('.').all(label) {
        let host = shown(host);
        return Err(format!("the registry `{host}` is not a host name; names of images are in lower case"));
    }
    match port {
        Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Err(format!("`{}` is not the port of a registry", shown(port)))
        }
        Some(_) | None => Ok(()),
    }
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn check_component(part: &str) -> Verdict {
    if part.is_empty() {
        return Err("a part of the name is empty".to_owned());
    }
    if part.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!("`{}` must be in lower case", shown(part)));
    }
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators: Vec<&str> = part.split(is_word).filter(|separator| !separator.is_empty()).collect();
    let joins = |separator: &&str| {
        matches!(*separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    };
    if part.starts_with(is_word) && part.ends_with(is_word) && separators.iter().all(joins) {
        Ok(())
    } else {
        Err(format!("`{}` may hold a-z and 0-9, joined by ., _, __ or -", shown(part)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_every_form_are_accepted() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for good in [
            "nginx",
            "nginx:1.27-alpine",
            "library/nginx:latest",
            "ghcr.io/a/b-c/d_e__f.g:v1.0_x",
            "localhost/x",
            "localhost:5000/x:y",
            "localhost:5000/a/b__c/d--e:latest",
            "registry.local:443/x",
            "127.0.0.1:5000/x",
            "[::1]:5000/x",
            &format!("nginx@{digest}"),
            &format!("app:tag@{digest}"),
            &"a".repeat(255),
            &format!("a.b:1/x:t@{digest}"),
            "a--b",
        ] {
            assert_eq!(image(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn the_message_names_the_part_that_is_wrong() {
        let long = "a".repeat(256);
        for (bad, part) in [
            ("", "empty"),
            ("UPPER/Case", "lower case"),
            ("Nginx", "`Nginx` must be in lower case"),
            ("a:b:c", "`a:b`"),
            ("http://x", "https://"),
            (&long, "longer"),
            ("a:b c", "character ` `"),
            ("a\r\nb", "character `\\r`"),
            ("a@sha256:12", "64 characters"),
            ("a@md5:12", "is not sha256"),
            ("a:-x", "the tag `-x`"),
            ("a:", "the tag ``"),
            ("a:.x", "the tag `.x`"),
            ("/a", "empty"),
            ("a/", "empty"),
            ("a_-b", "`a_-b`"),
            ("-a", "`-a`"),
            ("-host.tld/a", "`-host.tld`"),
            ("host.tld:0/a", "`0` is not the port"),
            ("a//b", "empty"),
            ("a/b..c", "`b..c`"),
            ("x.y:abc/z", "`abc` is not the port"),
            ("_a", "`_a`"),
            ("a\u{e9}", "joined"),
        ] {
            let message = image(bad).unwrap_err();
            assert!(message.contains(part), "{bad}: {message}");
        }
    }
}
