//! What others call otherwise: words of Docker Compose, of Swarm and of kubectl, and what they are here.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// After which command, the words, and what is meant.
type Habit = (&'static str, &'static [&'static str], &'static str);

/// A word stands here once, and no command of ours is named so: tests see to both.
const HABITS: &[Habit] = &[
    (
        "",
        &["up", "deploy", "create", "build", "pull", "push", "update", "upgrade", "rollback"],
        "tug apply -f FILE",
    ),
    ("", &["down", "delete", "remove", "destroy", "uninstall", "kill"], "tug rm PROJECT"),
    ("", &["stop", "pause"], "tug scale SERVICE=0"),
    ("", &["start", "unpause"], "tug scale SERVICE=N"),
    ("", &["rollout", "reload"], "tug restart SERVICE"),
    ("", &["run"], "tug exec SERVICE -- COMMAND, or tug dev FILE"),
    ("", &["attach"], "tug logs -f SERVICE, or tug exec SERVICE -- sh"),
    ("", &["status", "get", "service", "services", "task", "tasks", "pods", "container", "port"], "tug ps"),
    ("", &["list", "stack", "stacks", "project", "projects"], "tug ls"),
    ("", &["describe", "inspect", "explain"], "tug why SERVICE"),
    ("", &["config", "convert", "validate", "lint"], "tug check FILE"),
    ("", &["diff"], "tug plan -f FILE"),
    ("", &["stats"], "tug top"),
    ("", &["history"], "tug events"),
    ("", &["nodes", "machines", "cluster"], "tug node ls"),
    ("", &["drain", "cordon"], "tug node drain NODE"),
    ("", &["activate", "uncordon"], "tug node activate NODE"),
    ("", &["label"], "tug node label NODE KEY=VALUE"),
    ("", &["volumes"], "tug volume ls"),
    ("", &["tokens"], "tug token ls"),
    ("", &["swarm", "init", "install"], "tug server --agent --install, then tug token create"),
    ("", &["leave"], "tug node rm NODE"),
    ("", &["info"], "tug version, or tug node ls"),
    ("node", &["list", "ps"], "tug node ls"),
    ("node", &["inspect", "describe", "get"], "tug node show NODE"),
    ("node", &["remove", "delete", "leave"], "tug node rm NODE"),
    ("node", &["cordon", "pause"], "tug node drain NODE"),
    ("node", &["uncordon", "undrain", "resume"], "tug node activate NODE"),
    ("node", &["update", "tag"], "tug node label NODE KEY=VALUE"),
    ("volume", &["list", "inspect", "show"], "tug volume ls"),
    (
        "volume",
        &["rm", "remove", "delete", "prune"],
        "tug volume forget VOLUME, which leaves the data where it is",
    ),
    ("token", &["list", "show"], "tug token ls"),
    ("token", &["new", "add", "make"], "tug token create"),
    ("token", &["remove", "delete", "revoke"], "tug token rm ID"),
    ("context", &["list", "show"], "tug context ls"),
    ("context", &["switch", "set", "select"], "tug context use NAME"),
    ("context", &["remove", "delete"], "tug context rm NAME"),
];

/// The error, with what the unknown word is called here. `words` are those of the command line.
pub(crate) fn advised(mut error: clap::Error, words: impl IntoIterator<Item = String>) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand).cloned() else {
        return error;
    };
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let before = words.into_iter().skip(1).take_while(|other| *other != word);
    let is_parent = |other: &String| HABITS.iter().any(|(parent, ..)| parent == other);
    let parent = before.filter(is_parent).last().unwrap_or_default();
    if let Some(meant) = meant(&parent, &word) {
        error.remove(ContextKind::SuggestedSubcommand);
        let said = StyledStr::from(format!("did you mean `{meant}`?"));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![said]));
    }
    error
}

fn meant(parent: &str, word: &str) -> Option<&'static str> {
    HABITS.iter().find(|(of, words, _)| *of == parent && words.contains(&word)).map(|(.., meant)| *meant)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::command;
    use super::*;

    fn said(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let error = command().try_get_matches_from(&words).unwrap_err();
        let error = advised(error, words);
        assert_eq!(error.exit_code(), i32::from(crate::failure::USAGE));
        error.to_string()
    }

    #[test]
    fn a_word_of_others_is_answered_with_ours() {
        insta::assert_snapshot!(said("tug up -f compose.yaml"), @r"
        error: unrecognized subcommand 'up'

          tip: did you mean `tug apply -f FILE`?

        Usage: tug [OPTIONS] <COMMAND>

        For more information, try '--help'.
        ");
        assert!(said("tug --socket /s node list").contains("did you mean `tug node ls`?"));
        assert!(said("tug volume rm x").contains("leaves the data where it is"));
        let typo = said("tug aply");
        assert!(typo.contains("'apply'") && !typo.contains("did you mean"), "{typo}");
        assert!(!said("tug xyzzy").contains("tip"));
    }

    #[test]
    fn every_word_is_known_once_and_leads_to_commands_that_there_are() {
        let all = command();
        let mut seen = BTreeSet::new();
        for (parent, words, meant) in HABITS {
            let of = if parent.is_empty() { Some(&all) } else { all.find_subcommand(parent) };
            let of = of.unwrap_or_else(|| panic!("there is no command {parent}"));
            for word in *words {
                assert!(seen.insert((parent, word)), "{parent} {word} stands twice");
                assert!(of.find_subcommand(word).is_none(), "{parent} {word} is a command");
            }
            for line in meant.split("tug ").skip(1) {
                let mut words = line.split([' ', ',']);
                let command = all.find_subcommand(words.next().unwrap_or_default());
                let command = command.unwrap_or_else(|| panic!("{meant}"));
                let part = words.next().filter(|_| command.has_subcommands());
                assert!(part.is_none_or(|part| command.find_subcommand(part).is_some()), "{meant}");
            }
        }
    }
}
