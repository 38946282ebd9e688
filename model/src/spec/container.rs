//! What one container is made of. Any change here is a new task: the template's hash says so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{Digest, NetworkName, VolumeName};
use crate::quantity::{Bytes, Millis, NanoCpus};

/// Everything the Engine is told about a container, in the manifest's words and order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Container {
    /// `image:` as written: a tag, a digest or both.
    pub image: String,
    /// The id (`sha256:…`) of the image that `image` meant when the project was applied, or that was built for it: what
    /// runs, so that another image under the same tag is a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The digest that a registry has for it: whoever pulls it, pulls this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<Digest>,
    /// When a registry is asked.
    pub pull_policy: PullPolicy,
    /// `os/arch[/variant]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// `None` leaves the image's own; an empty list clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `None` leaves the image's own; an empty list clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The environment; `env_file` is already in it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// `user[:group]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The host name inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The NIS domain name inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// `container_name`: one more alias on every network; the container itself is named after its task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Labels of the container. `tug.*` is ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// OCI annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Volumes, bind mounts and memory file systems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Files from the project's configs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<ConfigMount>,
    /// The health check that the Engine runs. `None` leaves the image's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The networks it joins, with [`NetworkMode::Bridge`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Attachment>)]
    pub networks: BTreeMap<NetworkName, Attachment>,
    /// Its own network, the host's or none.
    pub network_mode: NetworkMode,
    /// Lines of `/etc/hosts`: name to address, or to `host-gateway`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// DNS servers, search domains and options.
    #[serde(skip_serializing_if = "Dns::is_default")]
    pub dns: Dns,
    /// What it may use.
    #[serde(skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    /// What it may do.
    #[serde(skip_serializing_if = "Privileges::is_default")]
    pub privileges: Privileges,
    /// Devices of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Kernel parameters of its namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Where the Engine keeps its output. `None` is our default: `json-file`, 10 MiB, 3 files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// An init process as PID 1 that reaps and forwards signals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// A terminal for its standard streams.
    pub tty: bool,
    /// An open standard input.
    pub stdin_open: bool,
    /// The root file system is read-only.
    pub read_only: bool,
    /// The OCI runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The signal that asks it to stop; `None` is the image's own, or SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How long it has after that signal before SIGKILL, and how long its connections have before the signal.
    pub stop_grace_period: StopGrace,
}

/// When a registry is asked for an image.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// Only when the node has no such image.
    #[default]
    Missing,
    /// Before every new task.
    Always,
    /// Never: a missing image is an error.
    Never,
}

/// The time between the request to stop and SIGKILL; ten seconds unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct StopGrace(pub Millis);

/// Something mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// The absolute path inside the container.
    pub target: String,
    /// The container cannot write to it.
    #[serde(default)]
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MountSource {
    /// A named volume of the project.
    Volume {
        /// Its key under the project's `volumes`.
        name: VolumeName,
        /// Do not fill a new volume with what the image has at the target.
        #[serde(default)]
        nocopy: bool,
        /// A directory within the volume.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subpath: Option<String>,
    },
    /// A volume without a name, which goes with its container.
    Anonymous,
    /// An absolute path of the node.
    Bind {
        /// The path on the node.
        path: String,
        /// Make a missing path a directory, as the short form does.
        #[serde(default)]
        create: bool,
        /// `rprivate`, `rshared` …
        #[serde(default, skip_serializing_if = "Option::is_none")]
        propagation: Option<String>,
        /// `z` (shared) or `Z` (private) relabelling for SELinux.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        selinux: Option<String>,
    },
    /// Memory.
    Tmpfs {
        /// Its size limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<Bytes>,
        /// Its permission bits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
}

/// A config shown as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigMount {
    /// Its key under the project's `configs`.
    pub config: String,
    /// The hash of its content, so that new content is a new container.
    pub hash: String,
    /// The absolute path inside the container.
    pub target: String,
    /// Permission bits; `0444` unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner, as a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group, as a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// The Engine's own health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", line]`, `["NONE"]`; empty keeps the image's own test.
    pub test: Vec<String>,
    /// Between probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Millis>,
    /// For one probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// Failures in a row until unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Failures do not count for this long after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Millis>,
    /// Between probes during the start period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Millis>,
}

/// How a container is on a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Attachment {
    /// More names for it there; the service's name is always one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// A fixed address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ipv4_address: Option<std::net::Ipv4Addr>,
    /// A fixed IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ipv6_address: Option<std::net::Ipv6Addr>,
    /// A fixed hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Higher is joined first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Options for the network's driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
}

/// Whose network a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The project's networks.
    #[default]
    Bridge,
    /// The node's own.
    Host,
    /// None.
    None,
}

/// One line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtraHost {
    /// The name.
    pub host: String,
    /// An address, or `host-gateway`.
    pub address: String,
}

/// How a container resolves names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub servers: Vec<IpAddr>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of `resolv.conf`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What a container may use. `None` is no limit of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<NanoCpus>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Memory kept back for it under pressure (a soft limit).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<Bytes>,
    /// Memory and swap together in bytes; -1 is without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u8>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<i64>,
    /// Relative weight of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<i64>,
    /// Microseconds of processor time per period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// The period in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<i64>,
    /// Which processors, `0-2,4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    /// The size of `/dev/shm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Bytes>,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i64>,
    /// The kernel may not kill it for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill_disable: Option<bool>,
    /// Resource limits of its processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
}

/// One resource limit of `setrlimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// `nofile`, `nproc` …
    pub name: String,
    /// The soft limit; -1 is none.
    pub soft: i64,
    /// The hard limit; -1 is none.
    pub hard: i64,
}

/// What a container may do beyond the Engine's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Privileges {
    /// Everything.
    pub privileged: bool,
    /// Capabilities added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// `no-new-privileges`, `seccomp=…`, `label=…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// More groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// `host`, `private`, `shareable` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    /// `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
    /// `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns_mode: Option<String>,
    /// `host` or `private`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The parent cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Device rules, `c 1:3 rwm`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its path on the node.
    pub source: String,
    /// Its path inside.
    pub target: String,
    /// `rwm` or part of it.
    pub permissions: String,
}

/// Where the Engine keeps a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// The log driver.
    pub driver: String,
    /// Its options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

// === impl StopGrace ===

impl Default for StopGrace {
    fn default() -> Self {
        Self(Millis::from_secs(10))
    }
}

// === impl Attachment ===

impl Attachment {
    /// Whether two containers with this attachment would claim the same address.
    pub fn is_fixed(&self) -> bool {
        self.ipv4_address.is_some() || self.ipv6_address.is_some() || self.mac_address.is_some()
    }
}

// === impl Mount ===

impl Mount {
    /// Whether two containers with this mount would write to the same place.
    pub fn is_written(&self) -> bool {
        match self.source {
            MountSource::Volume { .. } | MountSource::Bind { .. } => !self.read_only,
            MountSource::Anonymous | MountSource::Tmpfs { .. } => false,
        }
    }
}

// === impl Dns, Limits, Privileges ===

macro_rules! is_default {
    ($($type:ty),*) => {$(
        impl $type {
            fn is_default(&self) -> bool {
                *self == Self::default()
            }
        }
    )*};
}
is_default!(Dns, Limits, Privileges);
