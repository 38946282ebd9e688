//! `cargo run -p tug-tests --bin lab -- 3`: Docker hosts to try things out on. Needs root, and leaves nothing behind.

#![expect(clippy::print_stdout, reason = "a program that talks to the person who runs it")]

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tug_tests::lab::Lab;

#[tokio::main]
async fn main() -> Result<()> {
    let hosts = match std::env::args().nth(1) {
        Some(number) => number.parse().context("how many hosts? such as `lab 3`")?,
        None => 3,
    };
    let lab = Lab::start(hosts).await?;
    for host in lab.hosts() {
        println!("{} {} {}", host.name(), host.address(), host.enter()?);
        println!("   DOCKER_HOST=unix://{}", host.socket().display());
    }
    println!("Ready. All ends with this program, or when its input does.");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
