//! What services share: networks, volumes and configs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A network of a project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Its name in the Engine: `PROJECT_KEY` unless the file says otherwise.
    pub engine_name: String,
    /// It must exist already and is never made or removed by us.
    pub external: bool,
    /// The driver; `bridge` unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Options for the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// No way out of it.
    pub internal: bool,
    /// Others may join it by hand.
    pub attachable: bool,
    /// With IPv6.
    pub enable_ipv6: bool,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Address management.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
}

/// Address management of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ipam {
    /// The driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The address ranges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<IpamPool>,
    /// Options for the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// One address range.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IpamPool {
    /// In CIDR form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The part that containers get addresses from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<String>,
    /// The gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Addresses kept free, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// A named volume of a project. Tug makes it, and never removes it by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Volume {
    /// Its name in the Engine: `PROJECT_KEY` unless the file says otherwise.
    pub engine_name: String,
    /// It must exist already.
    pub external: bool,
    /// The driver; `local` unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Options for the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Volume {
    /// Whether its data is on the machine that it is used on, and not on one that all of them reach.
    pub fn is_local(&self) -> bool {
        let shared = ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs"];
        let kind = self.driver_opts.get("type").map(String::as_str);
        self.driver.as_deref().is_none_or(|driver| driver == "local")
            && kind.is_none_or(|kind| !shared.contains(&kind))
    }

    /// Every absolute path in the options for the driver, with the key of its option: the usual driver mounts such
    /// paths, alone or in a list as in `lowerdir=/a:/b,upperdir=/c`.
    pub fn option_paths(&self) -> impl Iterator<Item = (&str, &str)> {
        self.driver_opts.iter().flat_map(|(key, value)| {
            let words = value.split([',', '=', ':']).filter(|word| word.starts_with('/'));
            words.map(|word| (key.as_str(), word))
        })
    }
}

/// The content of a config, carried with the project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The bytes, in base 64 on the wire.
    #[serde(with = "crate::spec::resource::base64")]
    #[schema(value_type = String)]
    pub content: Vec<u8>,
}

impl Config {
    /// The largest config, in bytes.
    pub const LARGEST: usize = 1 << 20;

    /// What names this content: the first 16 hexadecimal digits of its BLAKE3 hash.
    pub fn hash(&self) -> String {
        blake3::hash(&self.content).to_hex().chars().take(16).collect()
    }
}

/// Bytes as base 64 text in JSON.
mod base64 {
    use ::base64::Engine;
    use ::base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}
