//! Networks and volumes, and how it is noticed that the manifest has come to ask for something else.
//!
//! Neither can be changed once it is made, so what it was made from is kept in a label. Labels themselves are not
//! compared: nothing depends on them, and a volume must not be remade for one.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{Ipam as EngineIpam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tug_model::spec::resource::{Ipam, IpamPool, Network, Volume};

use super::{Owner, list, map};
use crate::runtime::label;

/// What the Engine is asked for to make a network.
pub(crate) fn network(owner: Owner<'_>, network: &Network) -> NetworkCreateRequest {
    let Network {
        engine_name,
        external: _,
        driver,
        driver_opts,
        internal,
        attachable,
        enable_ipv6,
        labels,
        ipam,
    } = network;
    let mut labels: HashMap<_, _> = map(labels).unwrap_or_default();
    labels.extend(owner.labels(label::NETWORK, &network_settings(network)));
    NetworkCreateRequest {
        name: engine_name.clone(),
        driver: Some(driver.clone().unwrap_or_else(|| "bridge".to_owned())),
        internal: Some(*internal),
        attachable: Some(*attachable),
        enable_ipv6: Some(*enable_ipv6),
        ipam: ipam.as_ref().map(address_management),
        options: map(driver_opts),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    }
}

/// What the Engine is asked for to make a volume.
pub(crate) fn volume(owner: Owner<'_>, volume: &Volume) -> VolumeCreateRequest {
    let Volume { engine_name, external: _, driver, driver_opts, labels } = volume;
    let mut labels: HashMap<_, _> = map(labels).unwrap_or_default();
    labels.extend(owner.labels(label::VOLUME, &volume_settings(volume)));
    VolumeCreateRequest {
        name: Some(engine_name.clone()),
        driver: Some(driver.clone().unwrap_or_else(|| "local".to_owned())),
        driver_opts: map(driver_opts),
        labels: Some(labels),
        cluster_volume_spec: None,
    }
}

/// What a network is made from, without what it may be given later.
pub(crate) fn network_settings(network: &Network) -> Network {
    let driver = Some(network.driver.clone().unwrap_or_else(|| "bridge".to_owned()));
    Network { engine_name: String::new(), external: false, labels: [].into(), driver, ..network.clone() }
}

/// What a volume is made from, without what it may be given later.
pub(crate) fn volume_settings(volume: &Volume) -> Volume {
    let driver = Some(volume.driver.clone().unwrap_or_else(|| "local".to_owned()));
    Volume { engine_name: String::new(), external: false, labels: [].into(), driver, ..volume.clone() }
}

/// The keys in which the settings kept in a label differ from `wanted`. Read back into the same type, so that a key
/// which a newer version adds, with its default, is no difference.
pub(crate) fn differences<T>(label: Option<&str>, wanted: &T) -> Vec<String>
where
    T: Serialize + DeserializeOwned,
{
    let Some(made_from) = label.and_then(|label| serde_json::from_str::<T>(label).ok()) else {
        return vec!["its settings label is missing or unreadable".to_owned()];
    };
    let fields = |value: &T| match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    let (made_from, wanted) = (fields(&made_from), fields(wanted));
    let keys: BTreeSet<&String> = made_from.keys().chain(wanted.keys()).collect();
    keys.into_iter().filter(|key| made_from.get(*key) != wanted.get(*key)).cloned().collect()
}

fn address_management(ipam: &Ipam) -> EngineIpam {
    let Ipam { driver, pools, options } = ipam;
    EngineIpam {
        driver: Some(driver.clone().unwrap_or_else(|| "default".to_owned())),
        config: list(pools.iter().map(|pool| {
            let IpamPool { subnet, ip_range, gateway, aux_addresses } = pool;
            IpamConfig {
                subnet: subnet.clone(),
                ip_range: ip_range.clone(),
                gateway: gateway.clone(),
                auxiliary_addresses: map(aux_addresses),
            }
        })),
        options: map(options),
    }
}

// === impl Owner ===

impl Owner<'_> {
    fn labels(self, key_label: &str, settings: &impl Serialize) -> [(String, String); 4] {
        let settings = serde_json::to_string(settings).expect("settings hold nothing that JSON cannot");
        [
            (label::NODE.to_owned(), self.node.to_string()),
            (label::PROJECT.to_owned(), self.project.to_string()),
            (key_label.to_owned(), self.key.to_owned()),
            (label::SETTINGS.to_owned(), settings),
        ]
    }
}
