//! What a person says about a machine: its labels, that it is to have tasks again, that it is gone.

use tug_api::user::{AvailabilityRequest, LabelsRequest, NodeRemoval, NodeStatus};
use tug_model::node::Role;

use super::{changed, named};
use crate::arguments::{ActivateArguments, LabelArguments, RemoveNodeArguments};
use crate::commands::{confirm, settle};
use crate::context::Context;
use crate::failure::Failure;
use crate::render::lines;
use crate::render::style::{self, paint};
use crate::watch::repeat;

/// Changes labels, all at once.
pub(super) async fn label(context: &mut Context, arguments: &LabelArguments) -> Result<(), Failure> {
    let request = labels(&arguments.labels)?;
    let before = named(context, &arguments.node).await?;
    let (client, id) = (&context.client, &before.node.id);
    let one = repeat(async || client.set_labels(id, &request).await).await?;
    for key in request.remove.iter().filter(|key| one.node.label(key).is_some()) {
        context.screen.note(&format!(
            "{key} stays: the agent of {id} was started with it; give it another value with {key}=VALUE"
        ));
    }
    context.screen.note(&format!("{} {id} is labelled", paint(style::GOOD, "✓")));
    changed(context, &one, &arguments.output)
}

/// Lets a node have tasks again.
pub(super) async fn activate(context: &mut Context, arguments: &ActivateArguments) -> Result<(), Failure> {
    let before = named(context, &arguments.node).await?;
    let (client, id) = (&context.client, &before.node.id);
    let one = repeat(async || client.set_availability(id, &AvailabilityRequest::Active).await).await?;
    let said = if before.node.is_active() { "has never been drained" } else { "has tasks again from now on" };
    context.screen.note(&format!("{} {id} {said}", paint(style::GOOD, "✓")));
    changed(context, &one, &arguments.output)
}

/// Removes a node from the cluster. Without a terminal to ask on, it must be confirmed by `-y`.
pub(super) async fn remove(context: &mut Context, arguments: &RemoveNodeArguments) -> Result<(), Failure> {
    let one = named(context, &arguments.node).await?;
    let id = &one.node.id;
    if !arguments.yes {
        if !context.screen.facts.can_ask() {
            return Err(Failure::usage(format!("{id} is removed only when that is confirmed"))
                .hint("say -y, or run this on a terminal"));
        }
        if !confirm(context, &question(&one, arguments.force), false)? {
            return Err(settle::declined());
        }
    }
    let (client, removal) = (&context.client, NodeRemoval { force: arguments.force });
    client.remove_node(id, &removal).await?;
    context.screen.note(&format!("{} {id} is no part of the cluster any more", paint(style::GOOD, "✓")));
    for line in aftermath(&one) {
        context.screen.note(&line);
    }
    Ok(())
}

fn question(one: &NodeStatus, force: bool) -> String {
    let id = &one.node.id;
    let tasks = lines::many(usize::try_from(one.tasks).unwrap_or(usize::MAX), "task");
    match (one.tasks, force) {
        (0, _) => format!("Remove {id} from the cluster? It can come back only with a new token"),
        (_, true) => format!("Remove {id} although it has {tasks}? What runs there is replaced elsewhere"),
        (_, false) => format!("Remove {id}, which has {tasks}?"),
    }
}

/// What is left to do on the machine itself.
fn aftermath(one: &NodeStatus) -> Vec<String> {
    let id = &one.node.id;
    let mut lines = Vec::new();
    if one.node.role == Role::Manager && one.connected {
        lines.push(format!(
            "{id} is on the control plane's machine: its agent comes back unless it is stopped"
        ));
    }
    if one.tasks > 0 {
        lines.push(format!(
            "what ran there may run on: stop its agent, then `docker rm -f $(docker ps -aq --filter label=tug.node={id})` there"
        ));
    }
    lines
}

/// `KEY=VALUE` and `KEY-`; every one that is neither is named.
fn labels(words: &[String]) -> Result<LabelsRequest, Failure> {
    let mut request = LabelsRequest::default();
    let mut wrong = Vec::new();
    for word in words {
        let key = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => {
                if request.set.insert(key.to_owned(), value.to_owned()).is_some_and(|old| old != value) {
                    wrong.push(format!("{} is given two values", key.escape_default()));
                }
                key
            }
            (None, Some(key)) if !key.is_empty() => {
                request.remove.insert(key.to_owned());
                key
            }
            (Some(_) | None, _) => {
                wrong.push(format!("`{}` is neither KEY=VALUE nor KEY-", word.escape_default()));
                continue;
            }
        };
        if request.set.contains_key(key) && request.remove.contains(key) {
            wrong.push(format!("{} is given and taken away", key.escape_default()));
        }
    }
    if wrong.is_empty() {
        return Ok(request);
    }
    Err(Failure::usage(wrong.join("\n")).hint("nothing was changed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn read(words: &[&str]) -> Result<String, String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        labels(&words)
            .map(|read| format!("{:?} {:?}", read.set, read.remove))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn labels_are_given_and_taken_away_together() {
        assert_eq!(
            read(&["disk=ssd", "zone-", "a=b=c-", "empty="]).unwrap(),
            r#"{"a": "b=c-", "disk": "ssd", "empty": ""} {"zone"}"#
        );
        insta::assert_snapshot!(read(&["disk", "=x", "-", "a=1", "a=2", "b=1", "b-"]).unwrap_err(), @r"
        `disk` is neither KEY=VALUE nor KEY-
        `=x` is neither KEY=VALUE nor KEY-
        `-` is neither KEY=VALUE nor KEY-
        a is given two values
        b is given and taken away
        ");
    }

    #[test]
    fn what_is_given_up_is_asked_first_and_what_is_left_to_do_is_said() {
        let mut one = sample::node("attic");
        one.node.role = Role::Worker;
        assert!(question(&one, false).contains("new token") && aftermath(&one).is_empty());
        one.tasks = 1;
        assert_eq!(question(&one, false), "Remove attic, which has 1 task?");
        one.tasks = 2;
        assert!(question(&one, true).contains("although it has 2 tasks"));
        assert!(aftermath(&one)[0].contains("label=tug.node=attic"));
    }
}
