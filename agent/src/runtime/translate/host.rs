//! What a container may use and do, and what it shares with the node.

use std::collections::HashMap;

use bollard::models::{
    DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, PortBinding, PortMap,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use tug_model::quantity::{Bytes, NanoCpus};
use tug_model::spec::container::{Container, Dns, Limits, Logging, NetworkMode, Privileges};
use tug_model::spec::service::Port;

use super::{Untranslatable, list, map, mounts, port_key, signed};
use crate::runtime::ContainerRequest;

/// The host side of the container of `request`.
pub(super) fn config(request: &ContainerRequest, network_mode: String) -> Result<HostConfig, Untranslatable> {
    let container = &request.template.container;
    let mounted = mounts::mounts(request)?;
    let bound = if container.network_mode == NetworkMode::Host { &[] } else { &*request.template.host_ports };
    let base = privileges(&container.privileges, limits(&container.limits));
    Ok(HostConfig {
        // The Engine restarts nothing: the agent decides.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(log_config(container.logging.as_ref())),
        network_mode: Some(network_mode),
        port_bindings: port_bindings(bound),
        binds: list(mounted.binds),
        mounts: list(mounted.mounts),
        ..environment(container, base)
    })
}

fn environment(container: &Container, base: HostConfig) -> HostConfig {
    let Dns { servers, search, options } = &container.dns;
    HostConfig {
        annotations: map(&container.annotations),
        devices: list(container.devices.iter().map(|device| DeviceMapping {
            path_on_host: Some(device.source.clone()),
            path_in_container: Some(device.target.clone()),
            cgroup_permissions: Some(device.permissions.clone()),
        })),
        dns: list(servers.iter().map(ToString::to_string)),
        dns_options: list(options.iter().cloned()),
        dns_search: list(search.iter().cloned()),
        extra_hosts: list(container.extra_hosts.iter().map(|line| format!("{}:{}", line.host, line.address))),
        init: container.init,
        readonly_rootfs: Some(container.read_only),
        runtime: container.runtime.clone(),
        sysctls: map(&container.sysctls),
        ..base
    }
}

fn limits(limits: &Limits) -> HostConfig {
    // Named one by one: a limit that the manifest gains and the Engine is not told of does not compile.
    let Limits {
        cpus,
        memory,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        pids,
        cpu_shares,
        cpu_quota,
        cpu_period,
        cpuset,
        shm_size,
        oom_score_adj,
        oom_kill_disable,
        ulimits,
        storage_opt,
    } = limits;
    let bytes = |amount: &Option<Bytes>| amount.map(|Bytes(amount)| signed(amount));
    HostConfig {
        nano_cpus: cpus.map(|NanoCpus(cpus)| signed(cpus)),
        memory: bytes(memory),
        memory_reservation: bytes(memory_reservation),
        memory_swap: *memory_swap,
        memory_swappiness: memory_swappiness.map(i64::from),
        pids_limit: *pids,
        cpu_shares: *cpu_shares,
        cpu_quota: *cpu_quota,
        cpu_period: *cpu_period,
        cpuset_cpus: cpuset.clone(),
        shm_size: bytes(shm_size),
        oom_score_adj: *oom_score_adj,
        oom_kill_disable: *oom_kill_disable,
        ulimits: list(ulimits.iter().map(|limit| ResourcesUlimits {
            name: Some(limit.name.clone()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        })),
        storage_opt: map(storage_opt),
        ..HostConfig::default()
    }
}

fn privileges(privileges: &Privileges, base: HostConfig) -> HostConfig {
    let Privileges {
        privileged,
        cap_add,
        cap_drop,
        security_opt,
        group_add,
        pid,
        ipc,
        uts,
        userns_mode,
        cgroup,
        cgroup_parent,
        device_cgroup_rules,
    } = privileges;
    HostConfig {
        privileged: Some(*privileged),
        cap_add: list(cap_add.iter().cloned()),
        cap_drop: list(cap_drop.iter().cloned()),
        security_opt: list(security_opt.iter().cloned()),
        group_add: list(group_add.iter().cloned()),
        pid_mode: pid.clone(),
        ipc_mode: ipc.clone(),
        uts_mode: uts.clone(),
        userns_mode: userns_mode.clone(),
        cgroupns_mode: cgroup.as_deref().map(|mode| match mode {
            "host" => HostConfigCgroupnsModeEnum::HOST,
            _ => HostConfigCgroupnsModeEnum::PRIVATE,
        }),
        cgroup_parent: cgroup_parent.clone(),
        device_cgroup_rules: list(device_cgroup_rules.iter().cloned()),
        ..base
    }
}

/// The Engine's own default keeps everything for ever; ours keeps the last 30 MB.
fn log_config(given: Option<&Logging>) -> HostConfigLogConfig {
    match given {
        Some(Logging { driver, options }) => {
            HostConfigLogConfig { typ: Some(driver.clone()), config: map(options) }
        }
        None => HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(
                [("max-size", "10m"), ("max-file", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ),
        },
    }
}

fn port_bindings(ports: &[Port]) -> Option<PortMap> {
    let mut bindings: PortMap = HashMap::new();
    for port in ports {
        let binding = PortBinding {
            host_ip: port.host_ip.map(|address| address.to_string()),
            host_port: port.published.map(|port| port.to_string()),
        };
        bindings.entry(port_key(port)).or_default().get_or_insert_default().push(binding);
    }
    (!bindings.is_empty()).then_some(bindings)
}
