//! A balancer and its holder as processes of their own, for the tests that kill one of them.
//!
//! - `balance run SOCKET ADDRESS:PORT BACKEND…`: listens at the address, with a holder at the socket. SIGTERM hands the
//!   listening socket over; SIGINT releases it.
//! - `balance hold SOCKET MILLISECONDS`: the holder.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tug_agent::holder::{self, HolderConfig};
use tug_agent::proxy::{Balancer, Config};
use tug_agent::route::{Backend, Location, Table, TableRoute};
use tug_model::spec::service::{Port, PortMode, Protocol};
use tug_model::{ProjectName, ServiceName, TaskId};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["hold", socket, alone] => {
            Ok(holder::run(&PathBuf::from(socket), Duration::from_millis(alone.parse()?))?)
        }
        ["run", socket, place, backends @ ..] => run(socket, place.parse()?, backends),
        _ => Err("usage: balance run SOCKET ADDRESS:PORT BACKEND… | balance hold SOCKET MILLISECONDS".into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(socket: &str, place: SocketAddr, backends: &[&str]) -> Result<(), Failure> {
    let holder = HolderConfig {
        executable: std::env::current_exe()?,
        arguments: ["hold", socket, "60000"].map(OsString::from).to_vec(),
        socket: PathBuf::from(socket),
    };
    let (mut hand_over, mut release) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (_table, follow) = watch::channel(Arc::new(table(place, backends)?));
    let (balancer, handle) =
        Balancer::new(Config { holder: Some(holder), ..Config::default() }, follow, None);
    let stop = CancellationToken::new();
    let balancing = tokio::spawn(balancer.run(stop.clone()));
    tokio::select! {
        biased;
        _ = release.recv() => handle.release_at_stop(),
        _ = hand_over.recv() => {}
    }
    stop.cancel();
    Ok(balancing.await?)
}

fn table(place: SocketAddr, backends: &[&str]) -> Result<Table, Failure> {
    let backend = |(number, address): (usize, &&str)| -> Result<Backend, Failure> {
        let task = TaskId::parse(&format!("test.web.{}.1", number + 1))?;
        Ok(Backend { task, location: Location::Here(address.parse()?) })
    };
    let route = TableRoute {
        project: ProjectName::parse("test")?,
        service: ServiceName::parse("web")?,
        port: Port {
            target: 80,
            published: Some(place.port()),
            host_ip: Some(place.ip()),
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
            app_protocol: None,
        },
        backends: backends.iter().enumerate().map(backend).collect::<Result<_, _>>()?,
    };
    Ok(Table { number: 1, routes: vec![route], ..Table::default() })
}
