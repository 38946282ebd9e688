//! `tug node drain`: empties a machine, and waits for it if asked, saying of each task what it waits for.
//!
//! What is seen decides: each look is at the whole node. What is stuck may come free when another machine joins, so it is
//! waited for a while; when nothing has moved in that time and nothing can, the waiting ends, and says so.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tug_api::Code;
use tug_api::client::CallError;
use tug_api::user::{AvailabilityRequest, Leaving, NodeState, NodeStatus};
use tug_model::NodeId;
use tug_model::node::Availability;

use super::{changed, named};
use crate::arguments::DrainArguments;
use crate::context::{Context, Interrupt};
use crate::failure::Failure;
use crate::render::Screen;
use crate::render::leaving;
use crate::render::style::{self, paint};
use crate::time::age;
use crate::watch::{may_pass, repeat};

/// The node is looked at so often.
const LOOK: Duration = Duration::from_millis(500);
/// What cannot leave is waited for so long, while nothing else moves.
const STUCK: Duration = Duration::from_secs(30);

/// How the waiting goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Wait,
    /// It is empty.
    Empty,
    /// Nothing can move as things stand.
    Stuck,
    /// Somebody wants it to have tasks again.
    Active,
}

/// Judges each look at a node that is to be emptied.
#[derive(Debug)]
struct Judge {
    may_be_stuck: bool,
    /// What was left when none of it could leave for the first time, and when that was.
    stuck: Option<(Vec<Leaving>, Instant)>,
}

/// Empties a node.
pub(super) async fn run(context: &mut Context, arguments: &DrainArguments) -> Result<(), Failure> {
    let before = named(context, &arguments.node).await?;
    let id = before.node.id.clone();
    let request = AvailabilityRequest::Drain { deadline: arguments.deadline.map(Into::into) };
    let client = &context.client;
    let one = repeat(async || client.set_availability(&id, &request).await).await?;
    if !arguments.wait {
        let left = if before.tasks == 0 { "it has no tasks" } else { "its tasks move elsewhere" };
        context
            .screen
            .note(&format!("{id} is being drained: {left}; `tug node show {id}` says how far it is"));
        return changed(context, &one, &arguments.output);
    }
    let one = wait(context, &id, arguments).await?;
    context.screen.note(&format!("{} {id} is empty", paint(style::GOOD, "✓")));
    changed(context, &one, &arguments.output)
}

async fn wait(context: &mut Context, id: &NodeId, arguments: &DrainArguments) -> Result<NodeStatus, Failure> {
    let deadline = Instant::now() + arguments.patience();
    let mut judge = Judge { may_be_stuck: arguments.deadline.is_none(), stuck: None };
    let mut progress = leaving::Leaving::new(context.screen.facts);
    let interrupt = context.interrupt.clone();
    let (mut latest, mut is_lost) = (None, false);
    loop {
        match look(context, id).await {
            Ok(one) => {
                is_lost = false;
                progress.show(&lines(&one), &mut context.screen);
                let verdict = judge.see(&one, Instant::now());
                if verdict != Verdict::Wait {
                    progress.finish();
                    return ended(&one, verdict, &mut context.screen);
                }
                latest = Some(one);
            }
            Err(CallError::Api(error)) if error.code == Code::NotFound => {
                return Err(Failure::new(format!("{id} was removed meanwhile")));
            }
            // The drain is on disk: a server that is away for a moment changes nothing of it.
            Err(error) if may_pass(&error) => {
                if !std::mem::replace(&mut is_lost, true) {
                    context.screen.note("the connection to the server was lost, trying again");
                }
            }
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            progress.finish();
            if let Some(one) = &latest {
                say_what_is_left(one, &mut context.screen);
            }
            return Err(out_of_time(id, arguments));
        }
        pause(&interrupt, id).await?;
    }
}

fn out_of_time(id: &NodeId, arguments: &DrainArguments) -> Failure {
    let within = age(arguments.patience().into());
    let longer = match (arguments.timeout, arguments.deadline) {
        (Some(_), _) => format!("--timeout {within} was named: name a longer one"),
        (None, Some(_)) => "--timeout waits longer".to_owned(),
        (None, None) => "--timeout waits longer, and --deadline stops what is left".to_owned(),
    };
    Failure::new(format!("{id} is not empty after {within}")).hint(format!("it goes on; {longer}"))
}

async fn look(context: &Context, id: &NodeId) -> Result<NodeStatus, CallError> {
    context.client.node(id).await
}

async fn pause(interrupt: &Interrupt, id: &NodeId) -> Result<(), Failure> {
    tokio::select! {
        biased;
        () = interrupt.asked() => {
            Err(interrupt.failure(&format!("stopped waiting; {id} goes on being drained")))
        }
        () = sleep(LOOK) => Ok(()),
    }
}

fn ended(one: &NodeStatus, verdict: Verdict, screen: &mut Screen) -> Result<NodeStatus, Failure> {
    let id = &one.node.id;
    match verdict {
        Verdict::Empty | Verdict::Wait => Ok(one.clone()),
        Verdict::Active => Err(Failure::new(format!("{id} was activated again meanwhile"))),
        Verdict::Stuck => {
            say_what_is_left(one, screen);
            Err(Failure::new(format!("{id} is not empty: what is left cannot leave")).hint(format!(
                "it leaves as soon as it can; `tug node drain {id} --deadline 1m` stops it, `tug node activate {id}` \
                 takes the drain back, and of a machine that is gone `tug node rm {id}` gives it up"
            )))
        }
    }
}

fn say_what_is_left(one: &NodeStatus, screen: &mut Screen) {
    for (task, waits_for) in lines(one) {
        screen.note(&format!("  {task}: {waits_for}"));
    }
}

fn lines(one: &NodeStatus) -> BTreeMap<String, String> {
    one.leaving.iter().map(|leaving| (leaving.task.to_string(), leaving.waits_for.clone())).collect()
}

impl Judge {
    fn see(&mut self, one: &NodeStatus, now: Instant) -> Verdict {
        if one.node.availability == Availability::Active {
            return Verdict::Active;
        }
        if one.leaving.is_empty() && matches!(one.state, NodeState::Drained | NodeState::Dead) {
            return Verdict::Empty;
        }
        let is_stuck = !one.leaving.is_empty() && one.leaving.iter().all(|leaving| leaving.is_stuck);
        let before = self.stuck.take().filter(|_| is_stuck);
        let since = before.filter(|(left, _)| *left == one.leaving).map_or(now, |(_, since)| since);
        self.stuck = is_stuck.then(|| (one.leaving.clone(), since));
        let is_over = is_stuck && now.duration_since(since) >= STUCK;
        if is_over && self.may_be_stuck { Verdict::Stuck } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use tug_model::{TaskId, Timestamp};

    use super::*;
    use crate::sample;

    fn draining(left: &[(&str, bool)]) -> NodeStatus {
        let mut one = sample::node("attic");
        one.node.availability = Availability::Drain { at: Timestamp(1), deadline: None };
        one.state = if left.is_empty() { NodeState::Drained } else { NodeState::Draining };
        let leaving = |(id, is_stuck): &(&str, bool)| Leaving {
            task: TaskId::parse(id).unwrap(),
            waits_for: "because".into(),
            is_stuck: *is_stuck,
        };
        one.leaving = left.iter().map(leaving).collect();
        one
    }

    fn judge(may_be_stuck: bool) -> Judge {
        Judge { may_be_stuck, stuck: None }
    }

    #[test]
    fn an_empty_node_is_empty_and_one_that_is_used_again_is_not() {
        let now = Instant::now();
        assert_eq!(judge(true).see(&draining(&[]), now), Verdict::Empty);
        assert_eq!(judge(true).see(&sample::node("attic"), now), Verdict::Active);
        let mut dead = draining(&[]);
        dead.state = NodeState::Dead;
        assert_eq!(judge(true).see(&dead, now), Verdict::Empty);
        dead.state = NodeState::Away;
        assert_eq!(judge(true).see(&dead, now), Verdict::Wait, "what runs there is not known");
    }

    #[test]
    fn who_named_a_time_is_told_that_it_was_that_one() {
        let id = NodeId::parse("attic").unwrap();
        let hint = |timeout: Option<u64>, deadline: Option<u64>| {
            let output = crate::arguments::OutputArguments { format: crate::arguments::Format::Table };
            let seconds = |time: Option<u64>| time.map(Duration::from_secs);
            let (timeout, deadline) = (seconds(timeout), seconds(deadline));
            let arguments = DrainArguments { node: "attic".into(), wait: true, deadline, timeout, output };
            out_of_time(&id, &arguments).hint.unwrap()
        };
        assert_eq!(hint(Some(30), None), "it goes on; --timeout 30s was named: name a longer one");
        assert_eq!(hint(None, Some(60)), "it goes on; --timeout waits longer");
        assert_eq!(hint(None, None), "it goes on; --timeout waits longer, and --deadline stops what is left");
    }

    #[test]
    fn only_what_cannot_move_for_long_ends_the_waiting() {
        let start = Instant::now();
        let (stuck, moving) = (draining(&[("shop.web.1.7", true)]), draining(&[("shop.web.1.7", false)]));
        let mut judge = judge(true);
        assert_eq!(judge.see(&moving, start), Verdict::Wait);
        assert_eq!(judge.see(&moving, start + STUCK * 2), Verdict::Wait);
        assert_eq!(judge.see(&stuck, start + STUCK * 3), Verdict::Wait);
        assert_eq!(judge.see(&moving, start + STUCK * 4), Verdict::Wait);
        assert_eq!(judge.see(&stuck, start + STUCK * 5), Verdict::Wait);
        assert_eq!(judge.see(&stuck, start + STUCK * 6), Verdict::Stuck);
        let mut patient = self::judge(false);
        assert_eq!(patient.see(&stuck, start), Verdict::Wait);
        assert_eq!(patient.see(&stuck, start + STUCK * 2), Verdict::Wait, "the deadline will end it");
    }
}
