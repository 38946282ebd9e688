//! Machines that are not well: cut off, deaf, mute, off, frozen. Who is well serves on, and what stood
//! on them stands elsewhere; when they are back, nothing runs twice and nothing was restarted that should stay.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_api::client::Client;
use tug_api::error::chain;
use tug_api::tls::Credentials;
use tug_api::transport::Channel;
use tug_api::user::{NodeState, NodeStatus};
use tug_model::Timestamp;
use tug_tests::cluster::{Cluster, Home, spread};
use tug_tests::lab::{Lab, Way};
use tug_tests::load::Load;
use tug_tests::tug::PATIENCE;

use super::{REPLICAS, hosts, load, manifest, project, unchanged, until_spread};

/// The machine that everything happens to; the control plane is on the first.
const VICTIM: usize = 3;
/// What the other machines are asked after that time must not fail because of the one that is gone. It is three seconds
/// on a machine with time to spare.
const LEFT_OUT: Duration = Duration::from_secs(10);
/// Three seconds after its last word, and a moment until it is seen.
const OUT: Duration = Duration::from_millis(3_500);
/// By then what stood there runs elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_a_lost_machine_is_left_out_replaced_and_taken_back() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::start(3).await?;
    let cluster = Cluster::start(&lab, Home::Apart).await?;
    cluster.apply(&manifest(REPLICAS)).await?;
    until_spread(&cluster, &[2, 2, 2]).await?;
    let (victim, mut reactions) = (lab.host(VICTIM), Vec::new());

    let lost = Lost::begin(&cluster, "its cable is cut").await?;
    lab.cut(victim)?;
    let lost = lost.until_replaced(&mut reactions).await?;
    lab.heal(victim)?;
    lost.until_back().await?;
    println!("{:?}", start.elapsed());

    for way in [Way::In, Way::Out] {
        let lost = Lost::begin(&cluster, &format!("packets do not go {way:?}")).await?;
        victim.block(way, None)?;
        let lost = lost.until_replaced(&mut reactions).await?;
        victim.unblock(way, None)?;
        lost.until_back().await?;
        println!("{:?}", start.elapsed());
        forget_losses(&cluster).await?;
    }

    let lost = Lost::begin(&cluster, "it is frozen").await?;
    victim.freeze().await?;
    let lost = lost.until_replaced(&mut reactions).await?;
    victim.thaw().await?;
    lost.until_back().await?;
    println!("{:?}", start.elapsed());

    let lost = Lost::begin(&cluster, "it is off").await?;
    lab.power_off(victim).await?;
    let lost = lost.until_replaced(&mut reactions).await?;
    let ended = its_certificate_has_ended(&cluster).await?;
    lab.power_on(victim).await?;
    cluster.start_agent(VICTIM)?;
    lost.until_back().await?;
    ensure!(cluster.membership(VICTIM)?.ends() > ended, "it is back by a new certificate");
    forget_losses(&cluster).await?;
    println!("{:?}", start.elapsed());
    half_of_them_at_once(&cluster).await?;
    println!("{:?}", start.elapsed());

    forget_losses(&cluster).await?;
    // Its machine lives, and so do its containers. Nobody knows whether they serve.
    let lost = Lost::begin(&cluster, "its agent is killed").await?;
    cluster.end_agent(VICTIM, Signal::KILL).await?;
    lost.until_replaced(&mut reactions).await?;
    println!("{:?}", start.elapsed());
    most_are_in_time(&reactions)
}

/// The machine is off for so long that its certificate ends, and opens nothing any more. Gives when that was.
async fn its_certificate_has_ended(cluster: &Cluster<'_>) -> Result<Timestamp> {
    cluster.outlive_certificate(VICTIM)?;
    let membership = cluster.membership(VICTIM)?;
    let server = membership.server(Some(&Credentials::new(&membership.identity)?))?;
    let start = Instant::now();
    loop {
        let client = Client::new(Channel::tls(server.clone()));
        let asked = cluster.lab().outside().run(async move { Ok(client.whoami().await) }).await?;
        let refused = chain(&asked.err().context("it is good for ever")?);
        // Who still speaks when the connection is closed does not hear why.
        if refused.contains("CertificateExpired") {
            return Ok(membership.ends());
        }
        ensure!(start.elapsed() < PATIENCE, "{refused}\n{}", cluster.logs());
    }
}

/// Time on this machine is shared with whatever else runs on it, which can only make a reaction slower.
fn most_are_in_time(reactions: &[Reaction]) -> Result<()> {
    let in_time = reactions.iter().filter(|it| it.out <= OUT && it.elsewhere <= ELSEWHERE).count();
    ensure!(2 * in_time > reactions.len(), "{reactions:?}");
    Ok(())
}

/// A machine that is lost again and again is given nothing for a while, which a new control plane does not know.
async fn forget_losses(cluster: &Cluster<'_>) -> Result<()> {
    cluster.end_server(Signal::TERM).await?;
    cluster.start_server().await?;
    let are_back =
        |nodes: &[NodeStatus]| nodes.iter().all(|node| node.state == NodeState::Ready && node.connected);
    cluster.until_nodes("all to be back", are_back).await.map(drop)
}

/// How soon something came of a loss.
#[derive(Debug)]
struct Reaction {
    /// The machine is out of the routes.
    out: Duration,
    /// All run elsewhere.
    elsewhere: Duration,
}

/// One machine is lost under load from the others.
struct Lost<'c, 'l> {
    cluster: &'c Cluster<'l>,
    what: String,
    at: Instant,
    load: Load,
    before: std::collections::BTreeMap<String, String>,
}

// === impl Lost ===

impl<'c, 'l> Lost<'c, 'l> {
    async fn begin(cluster: &'c Cluster<'l>, what: &str) -> Result<Self> {
        until_spread(cluster, &[2, 2, 2]).await?;
        let before = cluster.starts(&hosts(cluster, &[1, 2])).await?;
        let load = load(cluster, &[1, 2]);
        load.more(50).await?;
        Ok(Self { cluster, what: what.to_owned(), at: Instant::now(), load, before })
    }

    /// Waits until all run elsewhere.
    async fn until_replaced(self, reactions: &mut Vec<Reaction>) -> Result<Self> {
        let cluster = self.cluster;
        let is_out =
            |nodes: &[NodeStatus]| nodes.iter().any(|it| it.node.id.as_str() == "h3" && !it.connected);
        cluster.until_nodes("the machine to count as lost", is_out).await?;
        let out = self.at.elapsed();
        let after = cluster.until_running(&hosts(cluster, &[1, 2]), REPLICAS as usize).await?;
        unchanged(&self.before, &after)?;
        ensure!(self.before.keys().all(|task| after.contains_key(task)), "they stay: {after:#?}");
        let elsewhere = self.at.elapsed();
        reactions.push(Reaction { out, elsewhere });
        cluster
            .until(&project(), "all to serve elsewhere", |status| {
                status.services.iter().all(|it| it.ready == REPLICAS)
                    && !spread(status).contains_key(&cluster.node(VICTIM))
            })
            .await?;
        self.load.more(100).await?;
        let failed = self.load.outcome().await;
        let last = failed.last_failure.map(|last| last.duration_since(self.at));
        println!(
            "{}: out after {out:?}, all elsewhere after {elsewhere:?}; {} of {} requests failed, the last after {last:?}",
            self.what,
            failed.failures.len(),
            failed.total()
        );
        ensure!(last.is_none_or(|last| last < LEFT_OUT), "{:?}\n{}", failed.failures, cluster.logs());
        Ok(self)
    }

    /// Waits until the machine has its share again, and nothing runs twice.
    async fn until_back(self) -> Result<()> {
        let (cluster, back) = (self.cluster, Instant::now());
        cluster.until_node(VICTIM, NodeState::Ready).await?;
        let ready = back.elapsed();
        until_spread(cluster, &[2, 2, 2]).await?;
        let after = cluster.until_running(&hosts(cluster, &[1, 2, 3]), REPLICAS as usize).await?;
        unchanged(&self.before, &after)?;
        let failures = self.load.outcome().await.failures.len();
        self.load.more(50).await?;
        let outcome = self.load.finish().await;
        println!(
            "{}: back after {ready:?}, all in its place after {:?}; {} requests failed since",
            self.what,
            back.elapsed(),
            outcome.failures.len() - failures
        );
        Ok(())
    }
}

/// Two of three: it is more likely that it is us who are cut off. Nothing is moved, and that is said.
async fn half_of_them_at_once(cluster: &Cluster<'_>) -> Result<()> {
    until_spread(cluster, &[2, 2, 2]).await?;
    let all = hosts(cluster, &[1, 2, 3]);
    let before = cluster.starts(&all).await?;
    for host in &all[1..] {
        cluster.lab().cut(host)?;
    }
    let says_so = |nodes: &[NodeStatus]| {
        let held = nodes.iter().filter(|it| it.reasons.iter().any(|why| why.contains("went away at once")));
        held.count() == 2
    };
    cluster.until_nodes("the brake", says_so).await?;
    let reasons = cluster.ok(&["why", "shop/web"]).await?;
    ensure!(reasons.contains("went away at once"), "{reasons}");
    let shown = cluster.ok(&["ps", "shop/web"]).await?;
    assert_eq!(shown.matches("unknown").count(), 4, "of what is there nobody knows how it stands: {shown}");
    assert_eq!(cluster.starts(&all).await?, before, "nothing is moved");
    for host in &all[1..] {
        cluster.lab().heal(host)?;
    }
    until_spread(cluster, &[2, 2, 2]).await?;
    assert_eq!(cluster.starts(&all).await?, before, "nothing was moved");
    Ok(())
}
