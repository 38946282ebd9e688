//! What a container may do beyond the Engine's defaults, and the devices it sees.

use tug_model::spec::container::{Container, Device};

use crate::reader::{Cursor, Fields};
use crate::schema;

pub(super) fn read(fields: &Fields<'_>, container: &mut Container) {
    let privileges = &mut container.privileges;
    privileges.privileged = fields.flag("privileged");
    privileges.cap_add = capabilities(fields, "cap_add");
    privileges.cap_drop = capabilities(fields, "cap_drop");
    privileges.security_opt = fields.texts("security_opt");
    privileges.group_add = fields.texts("group_add");
    privileges.pid = namespace(fields, "pid", &["host", "private"]);
    privileges.ipc = namespace(fields, "ipc", &["host", "private", "shareable", "none"]);
    privileges.uts = namespace(fields, "uts", &["host"]);
    privileges.userns_mode = namespace(fields, "userns_mode", &["host"]);
    privileges.cgroup = namespace(fields, "cgroup", &["host", "private"]);
    privileges.cgroup_parent = fields.text("cgroup_parent");
    privileges.device_cgroup_rules = fields.texts("device_cgroup_rules");
    container.devices = devices(fields);
}

fn capabilities(fields: &Fields<'_>, key: &'static str) -> Vec<String> {
    let mut found = Vec::new();
    for item in fields.get(key).map(|cursor| cursor.items()).unwrap_or_default() {
        let Some(text) = item.filled() else { continue };
        if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            found.push(text);
        } else {
            item.error(format!("\"{text}\" is not a capability like NET_ADMIN"));
        }
    }
    found
}

fn namespace(fields: &Fields<'_>, key: &'static str, words: &[&str]) -> Option<String> {
    let cursor = fields.get(key)?;
    let text = cursor.filled()?;
    if text.starts_with("service:") || text.starts_with("container:") {
        cursor.refuse(key, "unsupported: it ties the service to one container by name, which no replica is");
        return None;
    }
    let choices: Vec<(&str, &str)> = words.iter().map(|word| (*word, *word)).collect();
    // `private` is how a process namespace is without any word; the Engine knows no such word for it.
    cursor.choice(&choices).filter(|word| key != "pid" || *word != "private").map(str::to_owned)
}

fn devices(fields: &Fields<'_>) -> Vec<Device> {
    let items = fields.get("devices").map(|cursor| cursor.items()).unwrap_or_default();
    items.iter().filter_map(device).collect()
}

/// `SOURCE[:TARGET[:PERMISSIONS]]`, or a map of the three.
fn device(item: &Cursor<'_>) -> Option<Device> {
    let device = if item.is_map() {
        let fields = item.fields(&schema::DEVICE)?;
        let Some(source) = fields.text("source") else {
            fields.missing("source");
            return None;
        };
        let target = fields.text("target").unwrap_or_else(|| source.clone());
        let permissions = fields.text("permissions").unwrap_or_else(|| "rwm".to_owned());
        Device { source, target, permissions }
    } else {
        let text = item.filled()?;
        let mut parts = text.split(':');
        let source = parts.next().unwrap_or_default().to_owned();
        let (second, third) = (parts.next(), parts.next());
        let (target, permissions) = match (second, third) {
            (Some(word), None) if !word.starts_with('/') => (None, Some(word)),
            other => other,
        };
        Device {
            target: target.map_or_else(|| source.clone(), str::to_owned),
            permissions: permissions.unwrap_or("rwm").to_owned(),
            source,
        }
    };
    check_device(item, device)
}

fn check_device(item: &Cursor<'_>, device: Device) -> Option<Device> {
    if device.source.contains('=') {
        item.refuse("devices", "not yet: devices of a vendor (CDI)");
        return None;
    }
    if !device.source.starts_with('/') || !device.target.starts_with('/') {
        item.error("a device is an absolute path like /dev/fuse");
        return None;
    }
    let is_good = !device.permissions.is_empty() && device.permissions.chars().all(|c| "rwm".contains(c));
    if !is_good {
        item.error(format!("`{}` is not a permission: use r, w and m", device.permissions));
        return None;
    }
    Some(device)
}
