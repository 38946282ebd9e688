//! What is said to be followed, beside a real balancer that lags behind.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

use super::*;
use crate::holder::HolderConfig;
use crate::proxy;

/// A holder that can be connected to and answers nothing: it costs the balancer two seconds at each try.
fn mute_holder(machine: &Machine) -> (HolderConfig, OwnedFd) {
    let path = machine.file("mute.sock");
    let door = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    bind(&door, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&door, 16).unwrap();
    (HolderConfig { executable: path.clone(), arguments: Vec::new(), socket: path }, door)
}

/// Beside its task 1, another one that is drained in every second generation.
fn every_other_drained(generation: u64) -> Assignment {
    let second = if generation.is_multiple_of(2) { drain() } else { Desired::Run };
    assignment(generation, &template(), &[(1, Desired::Run), (2, second)])
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_followed_only_when_the_balancer_routes_by_it() {
    let machine = Machine::new();
    let (holder, _door) = mute_holder(&machine);
    let balancer = proxy::Config { holder: Some(holder), ..proxy::Config::default() };
    let agent = machine.agent_of(Config { balancer: Some(balancer), ..machine.config() }).await;
    // Published where nobody else listens.
    let port = Port { host_ip: Some(proxy::tests::own_address()), ..port() };
    let mut longest = Duration::ZERO;
    for generation in 1..=20 {
        let told = tokio::time::Instant::now();
        agent.publish(&every_other_drained(generation), port.clone()).await;
        let is_followed = |report: &Report| {
            let following = &report.following;
            following.generation.0 == generation && following.endpoints == following.generation
        };
        agent.until("followed", is_followed).await;
        let (applied, published) = (agent.handle.balancer.applied(), agent.handle.tables.borrow().number);
        assert_eq!(applied, published, "generation {generation} is followed");
        if generation > 1 {
            longest = longest.max(told.elapsed());
            assert_eq!(agent.backends(), 1 + usize::from(!generation.is_multiple_of(2)));
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert!(longest > Duration::from_secs(1), "the balancer never lagged behind: {longest:?}");
    agent.end().await;
}
