//! Several real Docker hosts on one machine: Engines of a test's own, that may be killed, cut off, frozen and powered
//! off. The machine's own Engine, network, mounts and processes are never touched, and no packet leaves the machine.
//!
//! A host is a set of name spaces with a first process, containerd and dockerd in it. Their cables end in a switch,
//! which has a network of its own, where clients live too. Every process in a host ends with its first process, so that
//! nothing has to be hunted for; signals are sent from inside, where no other process can be hit.

mod guard;
mod host;
mod requirements;
mod space;

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use bollard::Docker;
use futures_util::future::try_join_all;

use self::guard::Guard;
pub use self::host::{Host, Way};
pub use self::space::Inside;
use self::space::Space;

/// Where clients are that are on no host.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

const SWITCH: &str = r#"
    ip link add switch type bridge
    ip addr add "$1/24" dev switch
    ip link set switch up
"#;
/// The host's end of a cable goes into the network of the process that is named. What was there goes first: the kernel
/// takes its time with the network of a host that was powered off. The hardware address stays a host's own: others
/// remember it.
const PLUG: &str = r#"
    ip link delete "$1" 2>/dev/null || true
    ip link add "$1" type veth peer name eth0 address "$3" netns "$2"
    ip link set "$1" master switch up
"#;
const CABLE: &str = r#"ip link set "$1" "$2""#;

/// Docker hosts and the switch between them.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    switch: Option<Space>,
    outside: Option<Inside>,
    guard: Guard,
}

// === impl Lab ===

impl Lab {
    /// Starts so many hosts, and waits until their Engines answer.
    pub async fn start(hosts: u8) -> Result<Self> {
        requirements::check()?;
        let guard = Guard::start()?;
        // From here on what is dropped cleans up.
        let mut lab = Self { hosts: Vec::new(), switch: None, outside: None, guard };
        let folder = lab.guard.folder().join("switch");
        std::fs::create_dir(&folder)?;
        let switch = tokio::task::spawn_blocking(move || Space::start("switch", &folder)).await??;
        lab.outside = Some(switch.inside()?);
        lab.switch.insert(switch).script(SWITCH, &[&OUTSIDE.to_string()])?;
        for number in 1..=hosts {
            let address = Ipv4Addr::new(10, 77, 0, number);
            lab.hosts.push(Host::prepare(&lab.guard, number, address)?);
        }
        try_join_all(lab.hosts.iter().map(|host| lab.power_on(host))).await?;
        Ok(lab)
    }

    /// All of them, also those that are off.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// One of them; the first is 1.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// Threads outside of all hosts, on the switch.
    pub fn outside(&self) -> &Inside {
        self.outside.as_ref().expect("it is there from the start to the end")
    }

    /// Gives every host an image that another Engine has.
    pub async fn load(&self, image: &str, from: &Docker) -> Result<()> {
        try_join_all(self.hosts.iter().map(|host| host.load(image, from))).await.map(drop)
    }

    /// Boots a host that is off, with its cable in, and starts its Engine.
    pub async fn power_on(&self, host: &Host) -> Result<()> {
        let first = host.boot().await?.to_string();
        // The id is one of the machine's, and so is what is mounted where `ip` looks for it.
        self.switch()?.script_on_machine(PLUG, &[&host.name(), &first, &host.hardware_address()])?;
        host.configure()?;
        host.start_engine().await
    }

    /// Every process of a host ends at once, and nobody is told: its cable goes first, since the kernel would close every
    /// connection on behalf of the processes, which no machine without power does.
    pub async fn power_off(&self, host: &Host) -> Result<()> {
        self.cut(host)?;
        host.power_off().await
    }

    /// Takes the cable of a host out.
    pub fn cut(&self, host: &Host) -> Result<()> {
        self.switch()?.script(CABLE, &[&host.name(), "down"]).map(drop)
    }

    /// Puts it in again.
    pub fn heal(&self, host: &Host) -> Result<()> {
        self.switch()?.script(CABLE, &[&host.name(), "up"]).map(drop)
    }

    /// The cable of a host lets through no more than `rate` each way, such as `256kbit`.
    pub fn narrow(&self, host: &Host, rate: &str) -> Result<()> {
        host.narrow(rate)?;
        host::narrow(self.switch()?, &host.name(), rate)
    }

    /// It is as wide as before.
    pub fn widen(&self, host: &Host) -> Result<()> {
        host.widen()?;
        host::widen(self.switch()?, &host.name())
    }

    /// Two hosts hear nothing of each other any more.
    pub fn cut_between(&self, one: &Host, other: &Host) -> Result<()> {
        one.block(Way::In, Some(other))?;
        other.block(Way::In, Some(one))
    }

    /// They do again.
    pub fn heal_between(&self, one: &Host, other: &Host) -> Result<()> {
        one.unblock(Way::In, Some(other))?;
        other.unblock(Way::In, Some(one))
    }

    fn switch(&self) -> Result<&Space> {
        self.switch.as_ref().context("the switch is there from the start to the end")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.outside.take());
        let mut ended: Vec<_> = self.hosts.iter().map(Host::shut_down).collect();
        ended.extend(self.switch.take().map(Space::shut_down));
        // Last, since nothing may run any more.
        ended.push(self.guard.end());
        let left: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
        if !left.is_empty() {
            eprintln!("cleaning up after a lab: {left:?}");
        }
    }
}
