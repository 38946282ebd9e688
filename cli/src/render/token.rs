//! Tokens: `tug token ls`, and what is said about a new one.

use tug_api::join::{TokenMade, TokenRequest};
use tug_model::Timestamp;
use tug_model::token::{Grant, Token};

use super::escape::printable;
use super::table::{Columns, Value};
use super::{Facts, style};
use crate::time::age;

/// The table of tokens.
pub(crate) fn tokens(tokens: &[Token], now: Timestamp, facts: Facts, wide: bool) -> String {
    if tokens.is_empty() {
        return String::new();
    }
    let mut names = vec!["TOKEN", "FOR", "EXPIRES", "USED", "NAME"];
    if wide {
        names.push("MADE");
    }
    let mut table = Columns::new(&names);
    for token in tokens {
        let mut row = vec![
            token.id.as_str().into(),
            purpose(&token.grant).into(),
            expiry(token, now),
            token.used_at.map_or_else(|| "-".to_owned(), |at| ago(at, now)).into(),
            token.name.as_str().into(),
        ];
        if wide {
            row.push(ago(token.created_at, now).into());
        }
        table.row(row);
    }
    table.render(facts, !wide)
}

fn purpose(grant: &Grant) -> String {
    match grant {
        Grant::Join { node: Some(node), .. } => format!("joining as {node}"),
        Grant::Join { node: None, uses: 1 } => "joining".to_owned(),
        Grant::Join { node: None, uses } => format!("joining, {uses} times"),
        Grant::Access { role, projects } if projects.is_empty() => role.to_string(),
        Grant::Access { role, projects } => {
            let names: Vec<&str> = projects.iter().map(AsRef::as_ref).collect();
            format!("{role} of {}", names.join(", "))
        }
    }
}

fn expiry(token: &Token, now: Timestamp) -> Value {
    match token.expires_at {
        None => "never".into(),
        Some(at) if at <= now => Value::styled("expired", style::BAD),
        Some(at) => format!("in {}", age(at.since(now))).into(),
    }
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", age(now.since(at)))
}

/// What a person should know about a new token, a line each.
pub(crate) fn explained(request: &TokenRequest, made: &TokenMade) -> Vec<String> {
    let life = |usual: &str| request.life.map_or_else(|| usual.to_owned(), age);
    let mut lines = Vec::new();
    match &request.grant {
        Grant::Join { node, uses } => {
            let who = match (node, uses) {
                (Some(node), _) => format!("the machine that shall be node {node}"),
                (None, 1) => "the machine that shall join".to_owned(),
                (None, uses) => format!("each machine that shall join, {uses} at most"),
            };
            lines.push(format!("Paste this on {who}, as root. It is good for {}.", life("1h")));
        }
        Grant::Access { role, projects } => {
            let what = purpose(&Grant::Access { role: *role, projects: projects.clone() });
            lines.push(format!(
                "A token for the API, as {what}. It is good for {} and not shown again.",
                life("90d")
            ));
            if made.servers.is_empty() {
                lines.push(
                    "The control plane listens for no other machine: start it without `--listen none`."
                        .to_owned(),
                );
            }
        }
    }
    let is_loopback = |server: &String| server.starts_with("127.") || server.starts_with("[::1]");
    if made.servers.iter().all(is_loopback) && !made.servers.is_empty() {
        lines.push(
            "Only this machine reaches that address: start the server with --listen or --advertise."
                .to_owned(),
        );
    } else if made.servers.len() > 1 {
        let others: Vec<String> = made.servers.iter().skip(1).map(|it| printable(it)).collect();
        lines.push(format!("This control plane is also at {}.", others.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use tug_model::token::AccessRole;
    use tug_model::{Millis, NodeId, ProjectName};

    use super::*;
    use crate::sample::NOW;

    fn token(id: &str, grant: Grant, life: u64) -> Token {
        Token {
            id: id.to_owned(),
            name: "laptop".to_owned(),
            hash: String::new(),
            grant,
            created_at: Timestamp(NOW.0 - 60_000),
            expires_at: Some(Timestamp(NOW.0 - 60_000).plus(Millis::from_secs(life))),
            used_at: (life > 60).then_some(Timestamp(NOW.0 - 5_000)),
        }
    }

    #[test]
    fn tokens_are_listed_with_what_they_are_good_for() {
        let shop = ProjectName::parse("shop").unwrap();
        let list = [
            token("00000001", Grant::Join { node: None, uses: 1 }, 3600),
            token("00000002", Grant::Join { node: Some(NodeId::parse("b").unwrap()), uses: 1 }, 30),
            token("00000003", Grant::Access { role: AccessRole::Deployer, projects: vec![shop] }, 86_400),
        ];
        insta::assert_snapshot!(tokens(&list, NOW, Facts::default(), false), @r"
        TOKEN     FOR               EXPIRES  USED    NAME
        00000001  joining           in 59m   5s ago  laptop
        00000002  joining as b      expired  -       laptop
        00000003  deployer of shop  in 23h   5s ago  laptop
        ");
        assert!(tokens(&[], NOW, Facts::default(), false).is_empty());
    }

    #[test]
    fn a_new_token_is_explained() {
        let explained = |grant, servers: &[&str]| {
            let request = TokenRequest { name: String::new(), grant, life: None };
            let servers = servers.iter().map(|it| (*it).to_owned()).collect();
            let made = TokenMade { id: "1".into(), token: "t".into(), servers };
            super::explained(&request, &made).join("\n")
        };
        let join = || Grant::Join { node: None, uses: 1 };
        let said = explained(join(), &["192.0.2.7:7443", "10.0.0.1:7443"]);
        assert_eq!(
            said,
            "Paste this on the machine that shall join, as root. It is good for 1h.\n\
             This control plane is also at 10.0.0.1:7443."
        );
        assert!(explained(join(), &["127.0.0.1:7443"]).contains("Only this machine"));
        let access = Grant::Access { role: AccessRole::Viewer, projects: Vec::new() };
        assert!(explained(access, &[]).contains("listens for no other machine"));
    }
}
