//! What happens to our containers. The Engine filters, or health checks would flood us with their commands.

use std::collections::HashMap;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{StreamExt, TryStreamExt};

use super::{ContainerId, Docker, EngineEvent, Feed, Operation, RuntimeError, deadline};
use crate::runtime::{EventKind, label};

/// The Engine's words for what we want to hear of.
const KINDS: [(&str, EventKind); 9] = [
    ("create", EventKind::Created),
    ("start", EventKind::Started),
    ("die", EventKind::Died),
    ("oom", EventKind::OutOfMemory),
    ("health_status", EventKind::Health),
    ("pause", EventKind::Paused),
    ("unpause", EventKind::Unpaused),
    ("rename", EventKind::Renamed),
    ("destroy", EventKind::Removed),
];

// === impl Docker ===

impl Docker {
    pub(super) async fn open_events(&self) -> Result<Feed<EngineEvent>, RuntimeError> {
        let call = self.call(Operation::Events, &self.node);
        // The connection is opened when the feed is first read; asking for everything since now closes the gap.
        let info = call.within(deadline::READ, |client| async move { client.info().await }).await?;
        let since = info.system_time.as_deref().and_then(super::inspect::parse_time).unwrap_or_default();
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("label", vec![format!("{}={}", label::NODE, self.node)]),
            ("event", KINDS.map(|(word, _)| word.to_owned()).to_vec()),
        ]);
        let since = format!("{}.{:03}000000", since.0 / 1000, since.0 % 1000);
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        let client = call.client()?;
        let feed = client.events(Some(options)).map_err(call.failure());
        Ok(feed.try_filter_map(|message| std::future::ready(Ok(event(message)))).boxed())
    }
}

/// The event, if it is one of those that we asked for.
fn event(message: EventMessage) -> Option<EngineEvent> {
    let action = message.action?;
    // `health_status: unhealthy` carries its news behind the word.
    let word = action.split(':').next()?;
    let (_, kind) = KINDS.iter().find(|(known, _)| *known == word)?;
    Some(EngineEvent { container: ContainerId::new(&message.actor?.id?), kind: *kind })
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    #[test]
    fn events_are_known_by_their_first_word() {
        let check = |action: &str, kind| {
            let actor = EventActor { id: Some("c1".to_owned()), attributes: None };
            let message = EventMessage {
                action: Some(action.to_owned()),
                actor: Some(actor),
                ..EventMessage::default()
            };
            assert_eq!(event(message).map(|event| event.kind), kind, "{action}");
        };
        check("die", Some(EventKind::Died));
        check("health_status: unhealthy", Some(EventKind::Health));
        check("health_status", Some(EventKind::Health));
        check("exec_create: /probe", None);
        check("top", None);
    }
}
