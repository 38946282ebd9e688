//! `tug login`: a token is read, tried, and kept with the address that it is for; `tug whoami`: what came of it.

use tug_api::join::Whoami;
use tug_api::token::{TokenKind, TokenText};

use super::secret;
use crate::arguments::{LoginArguments, Url, WhoamiArguments};
use crate::context::Context;
use crate::failure::Failure;
use crate::place::store::{self, Saved, Store};
use crate::render::escape::printable;
use crate::render::structured;
use crate::render::style::{self, paint};

/// Logs in.
pub(crate) async fn run(context: &mut Context, arguments: &LoginArguments) -> Result<(), Failure> {
    let url = without_token(arguments)?;
    let name = arguments.name.clone().unwrap_or_else(|| default_name(&url.host));
    store::check(&name)?;
    let store = Store::require(&context.surroundings)?;
    let text = secret::read(context, arguments.token_file.as_deref()).await?;
    let token = for_access(&text)?;
    let authority = token.authority();
    let servers = vec![url.address()];
    let mut saved = Saved { name, servers, authority, cluster: String::new(), token };
    let client = saved.client()?;
    let who = client.whoami().await?;
    let info = client.info().await?;
    saved.cluster = info.cluster;
    saved.servers.extend(info.servers.into_iter().filter(|address| *address != url.address()));
    store.write(&saved)?;
    store.set_current(&saved.name)?;
    let sign = paint(style::GOOD, "✓");
    let name = &saved.name;
    context
        .screen
        .note(&format!("{sign} {url} knows you as {}; the context `{name}` is in use", described(&who)));
    if info.version != env!("CARGO_PKG_VERSION") {
        let (server, ours) = (printable(&info.version), env!("CARGO_PKG_VERSION"));
        context.screen.note(&format!("the server is of version {server}, this program of {ours}"));
    }
    Ok(())
}

/// Says who the server takes the user for.
pub(crate) async fn whoami(context: &mut Context, arguments: &WhoamiArguments) -> Result<(), Failure> {
    let who = context.client.whoami().await?;
    let text = structured::listed(&who, arguments.output.format, |_| format!("{}\n", described(&who)))?;
    context.screen.data(&text)
}

/// The address, where nothing on the command line is a token. Whatever is wrong with it, a token is not repeated.
fn without_token(arguments: &LoginArguments) -> Result<Url, Failure> {
    let path = arguments.token_file.as_ref().map(|path| path.to_string_lossy());
    let words = [Some(arguments.url.as_str()), arguments.name.as_deref(), path.as_deref()];
    let is_token = |word: &str| word.starts_with("tug_access_") || word.starts_with("tug_join_");
    if arguments.token.is_some() || !arguments.more.is_empty() || words.into_iter().flatten().any(is_token) {
        return Err(Failure::usage(
            "a token is not written on the command line: everybody on this machine can read it there",
        )
        .hint("`tug login URL` asks for it; or use --token-file FILE, or standard input"));
    }
    arguments
        .url
        .parse()
        .map_err(|error: String| Failure::usage(format!("`{}`: {error}", arguments.url.escape_default())))
}

fn for_access(text: &str) -> Result<TokenText, Failure> {
    let token: TokenText = text.parse().map_err(|error: tug_api::token::BadToken| {
        Failure::new(error.to_string()).hint("an admin makes one with `tug token create`")
    })?;
    match token.kind() {
        TokenKind::Access => Ok(token),
        TokenKind::Join => Err(Failure::new("this token lets a machine join, and does not let a person in")
            .hint("a machine joins by `tug join`; for yourself ask an admin for a token of a role")),
    }
}

/// The host as the name of a context.
fn default_name(host: &str) -> String {
    let name: String = host.chars().map(|c| if c == ':' { '-' } else { c }).collect();
    name.trim_matches(['[', ']', '-']).to_owned()
}

fn described(who: &Whoami) -> String {
    match who {
        Whoami::Local => "whoever may open the socket: you may do everything".to_owned(),
        Whoami::Node { node, .. } => format!("the node {node}"),
        Whoami::Token { id, name, role, projects } => {
            let name = if name.is_empty() { String::new() } else { format!(" ({})", printable(name)) };
            let projects: Vec<&str> = projects.iter().map(AsRef::as_ref).collect();
            let of = if projects.is_empty() { String::new() } else { format!(" of {}", projects.join(", ")) };
            format!("{role}{of}, by token {}{name}", printable(id))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tug_model::ProjectName;
    use tug_model::token::AccessRole;

    use super::*;
    use crate::arguments::{Arguments, Command};

    #[test]
    fn only_a_token_for_access_lets_a_person_in() {
        let token = |kind| TokenText::new(kind, &"ab".repeat(32), [1; 36]).unwrap().expose();
        assert!(for_access(&token(TokenKind::Access)).is_ok());
        let failure = for_access(&token(TokenKind::Join)).unwrap_err();
        assert!(failure.message.contains("lets a machine join"));
        let mistyped = token(TokenKind::Access).replacen('.', ".A", 1);
        let failure = for_access(&mistyped).unwrap_err();
        assert!(!format!("{failure:?}").contains(&mistyped[20..]), "{failure:?}");
    }

    #[test]
    fn a_token_on_the_command_line_is_refused_and_not_repeated() {
        for line in [
            "tug login https://b --token tug_access_x",
            "tug login https://b --token",
            "tug login https://b tug_access_x",
            "tug login tug_access_x",
            "tug login https://b --token-file tug_access_x",
            "tug login https://b --name tug_join_x",
        ] {
            let parsed = Arguments::try_parse_from(line.split_whitespace()).unwrap();
            let Command::Login(arguments) = parsed.command else { panic!("{line}") };
            let failure = without_token(&arguments).unwrap_err();
            assert!(failure.message.contains("not written on the command line"), "{line}: {failure:?}");
            assert!(!format!("{failure:?}").contains("_x"), "{line}: {failure:?}");
        }
        let parsed = Arguments::try_parse_from(["tug", "login", "http://b"]).unwrap();
        let Command::Login(arguments) = parsed.command else { panic!("not a login") };
        assert!(without_token(&arguments).unwrap_err().message.contains("by https only"));
    }

    #[test]
    fn who_one_is_is_said_in_words() {
        let who = |name: &str, projects: &[&str]| {
            let projects = projects.iter().map(|name| ProjectName::parse(name).unwrap()).collect();
            let role = AccessRole::Deployer;
            described(&Whoami::Token { id: "0a1b2c3d".into(), name: name.into(), role, projects })
        };
        assert_eq!(who("ci", &["shop", "blog"]), "deployer of shop, blog, by token 0a1b2c3d (ci)");
        assert_eq!(who("", &[]), "deployer, by token 0a1b2c3d");
        assert_eq!(default_name("[2001:db8::1]"), "2001-db8--1");
        assert!(store::check(&default_name("[2001:db8::1]")).is_ok());
        assert!(store::check(&default_name("[::1]")).is_ok());
    }
}
