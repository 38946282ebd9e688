//! Where volumes have their data, and that this is forgotten. The data itself is nobody's to remove but the machine's.

use axum::Json;
use axum::extract::{Path, State};
use tug_api::user::VolumeStatus;
use tug_api::{ApiError, Code};

use super::Shared;
use super::authorise::Who;
use super::extract::InNode;
use super::machines::event;
use super::mutate::commit;
use crate::plan::volume;
use crate::store::Change;
use crate::world::world;

/// What the path says beside the node.
#[derive(Debug, serde::Deserialize)]
pub(super) struct InVolume {
    volume: String,
}

/// The volumes that have data on a node.
#[utoipa::path(get, path = "/v1/volumes", tag = "nodes",
    responses((status = 200, description = "The volumes, sorted by name and node", body = Vec<VolumeStatus>)))]
pub(super) async fn list(State(context): State<Shared>, who: Who) -> Json<Vec<VolumeStatus>> {
    let all = volume::all(&context.stand.view().world).into_iter();
    Json(all.filter_map(|volume| seen(volume, &who)).collect())
}

/// Forgets that a volume has its data on a node, so that the data is taken for lost. It stays where it is.
#[utoipa::path(delete, path = "/v1/nodes/{node}/volumes/{volume}", tag = "nodes",
    params(("node" = String, Path, description = "The node's id"),
        ("volume" = String, Path, description = "The volume's name in the Engine")),
    responses(
        (status = 200, description = "It is on disk: the volume may have its data on any node"),
        (status = 404, description = "It has no data there", body = tug_api::error::ErrorBody),
        (status = 409, description = "A service uses it", body = tug_api::error::ErrorBody)))]
pub(super) async fn forget(
    State(context): State<Shared>,
    InNode(node): InNode,
    Path(InVolume { volume }): Path<InVolume>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let now = context.clock.now();
    commit(&context, move |state| {
        let all = volume::all(&world(state, &std::sync::Arc::default()));
        let Some(known) = all.into_iter().find(|known| known.name == volume && known.node == node) else {
            let shown: String = volume.chars().take(64).flat_map(char::escape_default).collect();
            let what = format!("data of volume `{shown}` on node {node}");
            return Err(ApiError::not_found(what).hint("list the volumes: tug volume ls"));
        };
        if !known.services.is_empty() {
            let users: Vec<String> = known.services.iter().map(ToString::to_string).collect();
            let message = format!("volume {volume} is used by {}", users.join(", "));
            let hint =
                "take it out of the manifest, or remove the project, and try again when its tasks are gone";
            return Err(ApiError::new(Code::Conflict, message).hint(hint));
        }
        let event = event(&node, now, format!("it is forgotten that volume {volume} has its data here"));
        Ok((vec![Change::RemoveHome { volume, node }, event], ()))
    })
    .await?;
    Ok(Json(serde_json::json!({})))
}

/// What of a volume `who` may see.
fn seen(mut volume: VolumeStatus, who: &Who) -> Option<VolumeStatus> {
    if who.sees_all() {
        return Some(volume);
    }
    volume.projects.retain(|project| who.sees(project));
    volume.services.retain(|service| who.sees(&service.project));
    (!volume.projects.is_empty()).then_some(volume)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tug_api::Code;
    use tug_model::{NodeId, Timestamp};

    use super::super::bench::{Bench, shop};
    use super::*;

    /// The shop, whose database keeps its data in a volume.
    fn keeping() -> Value {
        let mut spec = shop();
        spec["volumes"] =
            json!({ "data": { "engine_name": "shop_data" }, "spare": { "engine_name": "shop_spare" } });
        spec["services"]["db"]["container"]["mounts"] =
            json!([{ "source": { "volume": { "name": "data" } }, "target": "/data" }]);
        spec
    }

    async fn bench() -> Bench {
        let bench = Bench::in_memory().await.0;
        bench.apply(&keeping()).await.value();
        let home = |(volume, node): (&str, &str)| Change::PutHome {
            volume: volume.to_owned(),
            node: NodeId::parse(node).unwrap(),
        };
        let homes = [("shop_data", "n1"), ("old_data", "n1"), ("old_data", "n2")].map(home).to_vec();
        bench.store.commit(Timestamp(1), move |_, _| homes).await.unwrap();
        bench
    }

    #[tokio::test(start_paused = true)]
    async fn volumes_are_listed_with_where_their_data_is_and_who_uses_it() {
        let bench = bench().await;
        let db = json!({ "project": "shop", "service": "db" });
        assert_eq!(
            bench.get("/v1/volumes").await.value(),
            json!([
                { "name": "old_data", "projects": [], "node": "n1", "services": [] },
                { "name": "old_data", "projects": [], "node": "n2", "services": [] },
                { "name": "shop_data", "projects": ["shop"], "node": "n1", "services": [db] },
            ])
        );
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn where_data_is_that_nobody_uses_can_be_forgotten_and_no_other() {
        let bench = bench().await;
        let forget = async |node: &str, volume: &str| {
            let path = format!("/v1/nodes/{node}/volumes/{volume}");
            bench.json("DELETE", &path, &json!(null)).await
        };
        let used = forget("n1", "shop_data").await.error().error;
        assert_eq!(
            (used.code, used.message.as_str()),
            (Code::Conflict, "volume shop_data is used by shop/db")
        );
        for (node, volume) in [("n2", "shop_data"), ("n3", "old_data"), ("n1", "nothing")] {
            assert_eq!(forget(node, volume).await.error().error.code, Code::NotFound, "{volume} on {node}");
        }
        forget("n1", "old_data").await.value();
        let homes = bench.store.snapshot().homes.clone();
        let left: Vec<(&str, usize)> =
            homes.iter().map(|(name, nodes)| (name.as_str(), nodes.len())).collect();
        assert_eq!(left, [("old_data", 1), ("shop_data", 1)]);
        forget("n2", "old_data").await.value();
        assert!(!bench.store.snapshot().homes.contains_key("old_data"));

        bench.json("DELETE", "/v1/projects/shop", &json!(null)).await.value();
        forget("n1", "shop_data").await.value();
        assert!(bench.store.snapshot().homes.is_empty(), "nobody uses it any more");
        bench.end().await;
    }
}
