//! The keys of a service and of what stands within it.

use super::Fate::{Ignored, NotYet, Noted, Refused, Silent};
use super::schema;

const ANOTHER_CONTAINER: &str = "it ties the service to one container by name, which no replica is";
const WINDOWS: &str = "it is for Windows containers";
const REAL_TIME: &str = "it needs a realtime kernel";
const BUILDKIT: &str = "it needs BuildKit; images are built by the Engine's own builder";

schema! { SERVICE, "a service", {
    "annotations",
    "attach" => Silent,
    "blkio_config" => NotYet("limits of disk bandwidth"),
    "build",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "configs",
    "container_name",
    "cpu_count" => Refused(WINDOWS),
    "cpu_percent" => Refused(WINDOWS),
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period" => Refused(REAL_TIME),
    "cpu_rt_runtime" => Refused(REAL_TIME),
    "cpu_shares",
    "cpus",
    "cpuset",
    "credential_spec" => Refused(WINDOWS),
    "depends_on",
    "deploy",
    "develop" => Ignored("`develop` is for working on an image, not for running it"),
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extends" => Silent,
    "external_links" => Refused(ANOTHER_CONTAINER),
    "extra_hosts",
    "gpus" => NotYet("graphics processors"),
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "isolation" => Refused(WINDOWS),
    "label_file",
    "labels",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "models" => Refused("models are run by Docker Desktop"),
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "ports",
    "post_start",
    "pre_start",
    "pre_stop",
    "privileged",
    "profiles",
    "provider" => Refused("a provider is a program of Docker Compose, not a container"),
    "pull_policy",
    "pull_refresh_after" => NotYet("asking the registry again after a time"),
    "read_only",
    "restart",
    "runtime",
    "scale",
    "secrets",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "use_api_socket" => Refused("mount /var/run/docker.sock instead, if the service may do everything"),
    "user",
    "userns_mode",
    "uts",
    "volume_driver" => Refused("write the driver to the volume"),
    "volumes",
    "volumes_from" => Refused(ANOTHER_CONTAINER),
    "working_dir",
    "x-autoscale",
    "x-cron",
    "x-exclusive",
    "x-hooks",
    "x-ingress",
    "x-probe",
} }

schema! { PORT, "a port", {
    "target",
    "published",
    "host_ip",
    "protocol",
    "mode",
    "app_protocol",
    "name" => Silent,
} }

schema! { MOUNT, "a volume", {
    "type",
    "source",
    "target",
    "read_only",
    "consistency" => Silent,
    "bind",
    "volume",
    "tmpfs",
    "image" => NotYet("mounting an image"),
} }

schema! { MOUNT_BIND, "bind", { "propagation", "create_host_path", "selinux", "recursive" } }

schema! { MOUNT_VOLUME, "volume", {
    "nocopy",
    "subpath",
    "labels" => NotYet("labels of a volume without a name; give it a name"),
} }

schema! { MOUNT_TMPFS, "tmpfs", { "size", "mode" } }

schema! { FILE_GRANT, "a config", { "source", "target", "uid", "gid", "mode" } }

schema! { ENV_FILE, "an env file", { "path", "required", "format" } }

schema! { HEALTHCHECK, "a health check", {
    "test",
    "interval",
    "timeout",
    "retries",
    "start_period",
    "start_interval",
    "disable",
} }

schema! { DEPENDENCY, "a dependency", {
    "condition",
    "required",
    "restart" => Ignored("a service is not restarted with another one"),
} }

schema! { ATTACHMENT, "a network of a service", {
    "aliases",
    "ipv4_address",
    "ipv6_address",
    "link_local_ips" => NotYet("link-local addresses"),
    "mac_address",
    "driver_opts",
    "priority",
    "gw_priority" => NotYet("the choice of the default gateway"),
    "interface_name" => NotYet("the name of the interface"),
} }

schema! { LOGGING, "logging", { "driver", "options" } }

schema! { ULIMIT, "a limit", { "soft", "hard" } }

schema! { DEVICE, "a device", { "source", "target", "permissions" } }

schema! { DEPLOY, "deploy", {
    "mode",
    "replicas",
    "labels",
    "resources",
    "restart_policy",
    "placement",
    "update_config",
    "rollback_config",
    "endpoint_mode",
    "x-autoscale",
} }

schema! { RESOURCES, "resources", { "limits", "reservations" } }

schema! { LIMITS, "limits", { "cpus", "memory", "pids" } }

schema! { RESERVATIONS, "reservations", {
    "cpus",
    "memory",
    "devices" => NotYet("reserved devices"),
    "generic_resources" => NotYet("generic resources"),
} }

schema! { RESTART_POLICY, "a restart policy", { "condition", "delay", "max_attempts", "window" } }

schema! { PLACEMENT, "placement", {
    "constraints",
    "max_replicas_per_node",
    "preferences",
} }

schema! { PREFERENCE, "a preference", { "spread" } }

schema! { UPDATE, "how a change is rolled out", {
    "parallelism",
    "delay",
    "failure_action",
    "monitor",
    "max_failure_ratio",
    "order",
} }

schema! { BUILD, "a build", {
    "additional_contexts" => NotYet(BUILDKIT),
    "args",
    "cache_from",
    "cache_to" => NotYet(BUILDKIT),
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements" => NotYet(BUILDKIT),
    "extra_hosts",
    "isolation" => Refused(WINDOWS),
    "labels",
    "network",
    "no_cache",
    "no_cache_filter" => NotYet(BUILDKIT),
    "platforms",
    "privileged" => NotYet(BUILDKIT),
    "provenance" => Noted("the Engine's own builder writes no provenance"),
    "pull",
    "sbom" => Noted("the Engine's own builder writes no bill of materials"),
    "secrets" => NotYet(BUILDKIT),
    "shm_size",
    "ssh" => NotYet(BUILDKIT),
    "tags",
    "target",
    "ulimits" => NotYet("limits of a build"),
} }

schema! { PROBE, "x-probe", { "tcp", "http", "port", "interval", "timeout", "retries", "start_period" } }

schema! { AUTOSCALE, "x-autoscale", {
    "min",
    "max",
    "cpu",
    "memory",
    "requests_per_second",
    "scale_up",
    "scale_down",
} }

schema! { SCALE_STEP, "a step of x-autoscale", { "cooldown", "step" } }

schema! { INGRESS, "x-ingress", {
    "host",
    "path",
    "strip_path",
    "port",
    "protocol",
    "tls",
    "redirect_http",
    "timeout",
    "sticky",
} }

schema! { INGRESS_TLS, "tls", { "cert", "key" } }

schema! { CRON, "x-cron", { "schedule", "timezone", "concurrency", "missed", "timeout", "keep" } }

schema! { CRON_KEEP, "keep", { "succeeded", "failed" } }

schema! { HOOKS, "x-hooks", { "pre_deploy", "post_deploy" } }

schema! { DEPLOY_HOOK, "a hook", { "command", "timeout", "environment", "user", "on_failure" } }

schema! { HOOK, "a hook", {
    "command",
    "image",
    "user",
    "privileged",
    "working_dir",
    "environment",
    "per_replica",
} }
