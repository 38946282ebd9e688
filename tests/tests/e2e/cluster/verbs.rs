//! The lab itself: hosts are apart, each fault does what it says, and nothing is left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, StartContainerOptions,
};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};
use tug_tests::image;
use tug_tests::lab::{Host, Inside, Lab, OUTSIDE, Way};
use tug_tests::load::get_from;

const IMAGE: &str = "tug-test-hello:1";
const CONTAINER: &str = "hello";
const PORT: u16 = 8080;
/// What takes longer than this does not come. On the switch it takes a hundredth of a millisecond.
const MOMENT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);
/// What a receiver keeps that has not been asked yet.
const DATAGRAMS: usize = 50;

/// Waits for the answer of the container on `host`.
async fn answers(from: &Inside, host: &Host) -> Result<()> {
    let address = SocketAddr::from((host.address(), PORT));
    let answered = from.run(async move {
        let start = Instant::now();
        loop {
            match timeout(MOMENT, get_from(address, "/healthz")).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) if start.elapsed() < PATIENCE => tokio::time::sleep(MOMENT / 20).await,
                Err(_) if start.elapsed() < PATIENCE => {}
                other => return other.context("no answer").map(drop),
            }
        }
    });
    answered.await.with_context(|| host.name())
}

/// Fails when the container on `host` answers.
async fn is_silent(from: &Inside, host: &Host) -> Result<()> {
    let address = SocketAddr::from((host.address(), PORT));
    let answer = from.run(async move { Ok(timeout(MOMENT, get_from(address, "/healthz")).await) }).await?;
    ensure!(!matches!(answer, Ok(Ok(_))), "{} answers: {answer:?}", host.name());
    Ok(())
}

/// A connection to the container on `host`.
async fn connect(from: &Inside, host: &Host) -> Result<TcpStream> {
    let address = (host.address(), PORT);
    from.run(async move { Ok(TcpStream::connect(address).await?) }).await
}

/// Fails when the other side ends a connection.
async fn hears_nothing(from: &Inside, mut connection: TcpStream) -> Result<()> {
    let heard = from.run(async move { Ok(timeout(MOMENT, connection.read(&mut [0])).await) }).await?;
    ensure!(heard.is_err(), "the connection was ended: {heard:?}");
    Ok(())
}

/// Whether a datagram comes through.
async fn arrives(from: &Inside, to: &Inside, address: Ipv4Addr) -> Result<bool> {
    let receiver = to.run(async { Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?) }).await?;
    let address = (address, receiver.local_addr()?.port());
    from.run(async move {
        let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        Ok(sender.send_to(b"x", address).await.map(drop).or_else(|error| {
            // What is dropped on its way out is refused at once.
            if error.kind() == std::io::ErrorKind::PermissionDenied { Ok(()) } else { Err(error) }
        })?)
    })
    .await?;
    to.run(async move { Ok(timeout(MOMENT, receiver.recv(&mut [0])).await.is_ok()) }).await
}

async fn run_hello(engine: &Docker) -> Result<()> {
    let binding = PortBinding { host_ip: None, host_port: Some(PORT.to_string()) };
    let ports = [(format!("{PORT}/tcp"), Some(vec![binding]))].into_iter().collect();
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        exposed_ports: Some(vec![format!("{PORT}/tcp")]),
        host_config: Some(HostConfig { port_bindings: Some(ports), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(CONTAINER).build();
    engine.create_container(Some(options), body).await?;
    Ok(engine.start_container(CONTAINER, None::<StartContainerOptions>).await?)
}

/// When the container was started, if it runs.
async fn started(host: &Host) -> Result<Option<String>> {
    let found = host.connect()?.inspect_container(CONTAINER, None::<InspectContainerOptions>).await?;
    let state = found.state.context("a container has a state")?;
    Ok(state.started_at.filter(|_| state.running == Some(true)))
}

async fn with_hello() -> Result<Lab> {
    let start = Instant::now();
    let lab = Lab::start(3).await?;
    println!("three hosts are up after {:?}", start.elapsed());
    let first = lab.host(1).connect()?;
    image::hello_image_of(&first, IMAGE).await;
    for host in [lab.host(2), lab.host(3)] {
        host.load(IMAGE, &first).await?;
    }
    for host in lab.hosts() {
        run_hello(&host.connect()?).await?;
        answers(lab.outside(), host).await?;
    }
    println!("and their containers answer after {:?}", start.elapsed());
    Ok(lab)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_every_fault_does_what_it_says() -> Result<()> {
    let lab = with_hello().await?;
    hosts_are_apart(&lab).await?;
    cables(&lab).await?;
    one_way(&lab).await?;
    bad_lines(&lab).await?;
    engines(&lab).await?;
    freezing(&lab).await?;
    power(&lab).await
}

async fn hosts_are_apart(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        let output =
            host.run(&["sh", "-c", "hostname; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'"]).await?;
        let output = String::from_utf8(output.stdout)?;
        let [name, first, processes] = output.lines().collect::<Vec<_>>()[..] else {
            anyhow::bail!("{output}")
        };
        assert_eq!((name, first), (&*host.name(), "docker-init"));
        ensure!(processes.parse::<u32>()? < 20, "{} sees {processes} processes", host.name());
        let inside = host.inside()?;
        let nowhere = inside.run(async {
            // An address that is nobody's, by RFC 5737.
            Ok(timeout(MOMENT, TcpStream::connect((Ipv4Addr::new(192, 0, 2, 1), 80))).await?)
        });
        let refused = nowhere.await?.err().context("something answers")?;
        assert_eq!(refused.kind(), std::io::ErrorKind::HostUnreachable, "at once");
    }
    Ok(())
}

async fn cables(lab: &Lab) -> Result<()> {
    let [one, two, three] = lab.hosts() else { anyhow::bail!("three hosts") };
    lab.cut(two)?;
    is_silent(lab.outside(), two).await?;
    answers(lab.outside(), three).await?;
    ensure!(two.engine_answers().await, "its Engine knows nothing of it");
    lab.heal(two)?;
    answers(lab.outside(), two).await?;

    lab.cut_between(one, two)?;
    let (from_one, from_two) = (one.inside()?, two.inside()?);
    is_silent(&from_one, two).await?;
    is_silent(&from_two, one).await?;
    answers(&from_one, three).await?;
    answers(&from_two, three).await?;
    lab.heal_between(one, two)?;
    answers(&from_one, two).await
}

async fn one_way(lab: &Lab) -> Result<()> {
    let (outside, host) = (lab.outside(), lab.host(2));
    let inside = host.inside()?;
    for (way, hears, is_heard) in [(Way::In, false, true), (Way::Out, true, false)] {
        host.block(way, None)?;
        assert_eq!(arrives(outside, &inside, host.address()).await?, hears, "{way:?}");
        assert_eq!(arrives(&inside, outside, OUTSIDE).await?, is_heard, "{way:?}");
        is_silent(outside, host).await?;
        host.unblock(way, None)?;
        answers(outside, host).await?;
    }
    Ok(())
}

async fn bad_lines(lab: &Lab) -> Result<()> {
    let host = lab.host(2);
    assert_eq!(arriving(lab, host).await?, DATAGRAMS);
    host.lose(Way::In, "0.5")?;
    let by_chance = arriving(lab, host).await?;
    host.keep(Way::In, "0.5")?;
    lab.narrow(host, "256kbit")?;
    let in_time = arriving(lab, host).await?;
    lab.widen(host)?;
    println!(
        "of {DATAGRAMS} datagrams {by_chance} were not lost by chance, and {in_time} went through a narrow line"
    );
    // That it is less than a tenth, or more than nine, happens once in a million times a million.
    ensure!((DATAGRAMS / 10..DATAGRAMS * 9 / 10).contains(&by_chance), "{by_chance}");
    ensure!((1..DATAGRAMS * 9 / 10).contains(&in_time), "there is no room for more to wait: {in_time}");
    assert_eq!(arriving(lab, host).await?, DATAGRAMS, "all is as it was");
    Ok(())
}

/// How many of some datagrams arrive that are sent to a host at once: together they are more than waits for a narrow line.
async fn arriving(lab: &Lab, host: &Host) -> Result<usize> {
    let (outside, inside) = (lab.outside(), host.inside()?);
    let receiver = inside.run(async { Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?) }).await?;
    let address = (host.address(), receiver.local_addr()?.port());
    outside
        .run(async move {
            let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            for _ in 0..DATAGRAMS {
                sender.send_to(&[0; 1000], address).await?;
            }
            Ok(())
        })
        .await?;
    let counted = inside.run(async move {
        let mut count = 0;
        while let Ok(received) = timeout(MOMENT, receiver.recv(&mut [0; 1000])).await {
            received?;
            count += 1;
        }
        Ok(count)
    });
    counted.await
}

async fn engines(lab: &Lab) -> Result<()> {
    let host = lab.host(3);
    for signal in [Signal::KILL, Signal::TERM] {
        ensure!(started(host).await?.is_some(), "it runs");
        host.end_engine(signal).await?;
        ensure!(!host.engine_answers().await, "it has ended");
        if signal == Signal::KILL {
            answers(lab.outside(), host).await?;
        }
        host.start_engine().await?;
        assert_eq!(started(host).await?, None, "an Engine without live-restore ends what ran before it");
        host.connect()?.start_container(CONTAINER, None::<StartContainerOptions>).await?;
        answers(lab.outside(), host).await?;
    }
    Ok(())
}

async fn freezing(lab: &Lab) -> Result<()> {
    let host = lab.host(3);
    let before = started(host).await?;
    host.freeze().await?;
    is_silent(lab.outside(), host).await?;
    ensure!(!host.engine_answers().await, "its Engine is frozen");
    host.thaw().await?;
    answers(lab.outside(), host).await?;
    assert_eq!(started(host).await?, before, "nothing was restarted");
    Ok(())
}

async fn power(lab: &Lab) -> Result<()> {
    let [_, two, three] = lab.hosts() else { anyhow::bail!("three hosts") };
    let connections = [connect(lab.outside(), two).await?, connect(lab.outside(), three).await?];
    // One that is frozen goes as well.
    three.freeze().await?;
    for (host, connection) in [two, three].into_iter().zip(connections) {
        lab.power_off(host).await?;
        hears_nothing(lab.outside(), connection).await?;
        is_silent(lab.outside(), host).await?;
        ensure!(!host.engine_answers().await, "{} is off", host.name());
        ensure!(host.run(&["true"]).await.is_err(), "{} is off", host.name());
        let start = Instant::now();
        lab.power_on(host).await?;
        println!("{} is on again after {:?}", host.name(), start.elapsed());
        assert_eq!(started(host).await?, None, "nobody restarts its container");
        host.connect()?.start_container(CONTAINER, None::<StartContainerOptions>).await?;
        answers(lab.outside(), host).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_nothing_is_left_behind() -> Result<()> {
    let lab = Lab::start(1).await?;
    image::hello_image_of(&lab.host(1).connect()?, IMAGE).await;
    run_hello(&lab.host(1).connect()?).await?;
    lab.host(1).freeze().await?;
    let folder = lab.host(1).folder().parent().context("the folder of the lab")?.to_owned();
    ensure!(!left(&folder)?.is_empty(), "there is something to remove");
    tokio::task::spawn_blocking(move || drop(lab)).await?;
    assert_eq!(left(&folder)?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_nothing_is_left_of_a_test_that_is_killed() -> Result<()> {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"));
    let mut lab = lab.arg("2").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let said = BufReader::new(lab.stdout.take().context("its output is piped")?);
    let lines: Vec<String> = said.lines().take(5).collect::<Result<_, _>>()?;
    ensure!(lines.last().is_some_and(|line| line.starts_with("Ready")), "{lines:?}");
    let socket = lines.iter().find_map(|line| line.split_once("unix://")).context("an Engine")?.1;
    let folder = Path::new(socket).ancestors().nth(2).context("the folder of the lab")?.to_owned();
    ensure!(left(&folder)?.len() > 8, "there is something to remove: {:?}", left(&folder)?);
    lab.kill()?;
    lab.wait()?;
    let start = Instant::now();
    while !left(&folder)?.is_empty() {
        ensure!(start.elapsed() < PATIENCE, "{:?}", left(&folder)?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("nothing is left {:?} after the end", start.elapsed());
    Ok(())
}

/// Processes that name the folder of a lab, its control groups, and itself.
fn left(folder: &Path) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let name = folder.file_name().context("a name")?.to_string_lossy().to_lowercase();
    let path = folder.to_string_lossy();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // A process may end while it is looked at, and a file of /proc that is no process has no such file in it.
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if arguments.contains(&*path) {
            left.push(arguments);
        }
    }
    let trees = fs::read_dir("/sys/fs/cgroup")?.filter_map(Result::ok).map(|entry| entry.path());
    let groups = trees.chain([PathBuf::from("/sys/fs/cgroup")]).map(|tree| tree.join(&name));
    left.extend(
        groups.chain([folder.to_owned()]).filter(|path| path.exists()).map(|path| path.display().to_string()),
    );
    Ok(left)
}
