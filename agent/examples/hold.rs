//! The holder as a program of its own: what the tests of the balancer start.
//!
//! `hold SOCKET MILLISECONDS`

use std::path::PathBuf;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(socket), Some(alone)) = (arguments.next(), arguments.next()) else {
        return Err("usage: hold SOCKET MILLISECONDS".into());
    };
    let alone = alone.to_str().ok_or("the number is no text")?.parse()?;
    Ok(tug_agent::holder::run(&PathBuf::from(socket), Duration::from_millis(alone))?)
}
