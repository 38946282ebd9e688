//! Volumes: `tug volume ls`, and those of one node.

use tug_api::user::VolumeStatus;

use super::table::{Columns, Value};
use super::{Facts, style};

/// The table of volumes.
pub(crate) fn volumes(volumes: &[VolumeStatus], facts: Facts, wide: bool) -> String {
    if volumes.is_empty() {
        return String::new();
    }
    let mut table = Columns::new(&["VOLUME", "PROJECT", "NODE", "USED BY"]);
    for volume in volumes {
        let projects: Vec<&str> = volume.projects.iter().map(tug_model::ProjectName::as_str).collect();
        let used = if volume.services.is_empty() {
            Value::styled("nothing", style::DIM)
        } else {
            users(volume).into()
        };
        table.row(vec![
            volume.name.as_str().into(),
            if projects.is_empty() { "-".into() } else { projects.join(", ").into() },
            volume.node.as_str().into(),
            used,
        ]);
    }
    table.render(facts, !wide)
}

/// One of those that have their data on a node, for the page of that node.
pub(crate) fn line(volume: &VolumeStatus) -> String {
    let name = &volume.name;
    if volume.services.is_empty() {
        format!("{name}, which no service uses: `tug volume forget {name} --node {}`", volume.node)
    } else {
        format!("{name}, used by {}", users(volume))
    }
}

fn users(volume: &VolumeStatus) -> String {
    let users: Vec<String> = volume.services.iter().map(ToString::to_string).collect();
    users.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn volumes_are_listed_with_their_nodes_and_users() {
        let all = [
            sample::volume("old_data", "b", &[]),
            sample::volume("shop_data", "a", &["shop/db", "shop/web"]),
        ];
        insta::assert_snapshot!(volumes(&all, Facts::default(), false), @r"
        VOLUME     PROJECT  NODE  USED BY
        old_data   -        b     nothing
        shop_data  shop     a     shop/db, shop/web
        ");
        assert!(volumes(&[], Facts::default(), false).is_empty());
        insta::assert_snapshot!(line(&all[0]), @"old_data, which no service uses: `tug volume forget old_data --node b`");
        insta::assert_snapshot!(line(&all[1]), @"shop_data, used by shop/db, shop/web");
    }
}
