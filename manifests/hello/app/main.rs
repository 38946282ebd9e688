//! A small web service in nothing but the standard library: the example that Tug's demo and its tests run.
//!
//! | request | answer |
//! |---|---|
//! | `/`, `/api/hello` | which replica served |
//! | `/version` | the variable `VERSION` |
//! | `/healthz` | 200; 503 after `/break`, until `/mend`, or while `/tmp/unhealthy` exists |
//! | `/slow?ms=500` | after that time |
//! | `/stream?lines=100&ms=50` | so many lines, each after that time |
//! | `/crash` | none: the process ends with code 7 |
//!
//! It listens on the port in the variable `PORT` (8080). The first argument chooses what it does; without one it
//! serves. Build it with `rustc --edition 2024 -O -C target-feature=+crt-static main.rs`: the program is then all that
//! an image needs.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The service says that it is ill.
static IS_BROKEN: AtomicBool = AtomicBool::new(false);

fn main() {
    end_on_sigterm();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<usize>().ok());
    match arguments.first().map_or("serve", String::as_str) {
        "serve" => serve(),
        "sleep" => thread::sleep(Duration::from_secs(u64::MAX)),
        "exit" => exit(number(1).unwrap_or(0) as i32),
        // print LINES [WIDTH]
        "print" => print(number(1).unwrap_or(1), number(2).unwrap_or(0)),
        "log-burst" => print(usize::MAX, 100),
        "cat" => drop(io::copy(&mut io::stdin(), &mut io::stdout())),
        "env" => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        "healthcheck" => healthcheck(),
        // witness FILE
        "witness" => witness(arguments.get(1).map_or("/witness/log", String::as_str)),
        other => {
            eprintln!(
                "`{other}` is none of serve, sleep, exit, print, log-burst, cat, env, healthcheck, witness"
            );
            exit(2);
        }
    }
}

fn variable(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

fn port() -> u16 {
    variable("PORT", "8080").parse().expect("PORT is a number")
}

// === serve ===

fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port())).expect("the port is free");
    println!("hello {} listens on port {}", variable("VERSION", "1"), port());
    for connection in listener.incoming() {
        let Ok(connection) = connection else { continue };
        // A thread for each connection is plenty with stacks this small. Where there is none left, the client sees a
        // closed connection and the service lives on.
        let _ = thread::Builder::new().stack_size(64 << 10).spawn(|| converse(connection));
    }
}

/// Answers one request after the other, until the client has no more.
fn converse(connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    connection.set_nodelay(true)?;
    let mut requests = BufReader::new(connection.try_clone()?);
    while let Some((target, is_last)) = read_request(&mut requests)? {
        if let Some(query) = target.strip_prefix("/stream?") {
            return stream(&connection, query);
        }
        let (status, body) = answer(&target);
        let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        (&connection).write_all((head + &body).as_bytes())?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// What the next request asks for, such as `/slow?ms=5`, and whether it is the connection's last; `None` at the end.
fn read_request(requests: &mut impl BufRead) -> io::Result<Option<(String, bool)>> {
    let mut first = String::new();
    requests.take(8192).read_line(&mut first)?;
    let Some(target) = first.split(' ').nth(1) else { return Ok(None) };
    let mut is_last = first.trim_end().ends_with("HTTP/1.0");
    let mut body = 0;
    loop {
        let mut line = String::new();
        requests.take(8192).read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            body = length.trim().parse().unwrap_or(0);
        }
        is_last |= line == "connection: close";
    }
    io::copy(&mut requests.take(body), &mut io::sink())?;
    Ok(Some((target.to_owned(), is_last)))
}

fn answer(target: &str) -> (&'static str, String) {
    const OK: &str = "200 OK";
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/" => (OK, format!("hello from {}\n", variable("HOSTNAME", "here"))),
        "/api/hello" => (OK, whoami()),
        "/version" => (OK, variable("VERSION", "1") + "\n"),
        "/healthz" if IS_BROKEN.load(Ordering::Relaxed) || Path::new("/tmp/unhealthy").exists() => {
            ("503 Service Unavailable", "ill\n".to_owned())
        }
        "/healthz" => (OK, "well\n".to_owned()),
        "/break" | "/mend" => {
            IS_BROKEN.store(path == "/break", Ordering::Relaxed);
            (OK, String::new())
        }
        "/slow" => {
            let time = number(query, "ms=").unwrap_or(1000);
            thread::sleep(Duration::from_millis(time));
            (OK, format!("after {time} ms\n"))
        }
        "/crash" => {
            eprintln!("crashing, as asked");
            exit(7);
        }
        _ => ("404 Not Found", format!("there is no {path:?}\n")),
    }
}

/// Writes one line after the other, and ends the connection after the last.
fn stream(mut connection: &TcpStream, query: &str) -> io::Result<()> {
    let time = Duration::from_millis(number(query, "ms=").unwrap_or(50));
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")?;
    for line in 1..=number(query, "lines=").unwrap_or(100) {
        thread::sleep(time);
        connection.write_all(format!("line {line}\n").as_bytes())?;
    }
    Ok(())
}

/// The number after `key` in `key=1&other=2`.
fn number(query: &str, key: &str) -> Option<u64> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)).and_then(|text| text.parse().ok())
}

fn whoami() -> String {
    let host = variable("HOSTNAME", "here");
    let version = variable("VERSION", "1");
    // `Debug` of such plain text is a JSON string.
    format!("{{\"replica\":{host:?},\"version\":{version:?}}}\n")
}

// === the rest ===

/// Asks the service beside it how it is: for a health check in an image that has no shell and no curl.
fn healthcheck() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port()));
    let ask = || {
        let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut status = String::new();
        BufReader::new(connection).read_line(&mut status)?;
        io::Result::Ok(status.trim().to_owned())
    };
    let status = ask().unwrap_or_else(|error| error.to_string());
    println!("{status}");
    exit(if status.contains(" 200 ") { 0 } else { 1 });
}

/// Appends a line to a file that others write to as well, every 50 ms: which start this is, on which host, and for how
/// many milliseconds the machine has been up, asleep or awake. Who reads it sees whether two ever ran at once.
fn witness(file: &str) {
    let mut log =
        OpenOptions::new().create(true).append(true).open(file).expect("the witness's file can be written");
    let (number, host) = (variable("TUG_FENCING_NUMBER", "0"), variable("HOSTNAME", "here"));
    loop {
        let times = std::fs::read_to_string("/proc/uptime").expect("the kernel says how long it has been up");
        // Seconds with two digits behind the point.
        let hundredths = times.split(' ').next().unwrap_or_default().replace('.', "");
        // One write is one line, whoever else writes.
        log.write_all(format!("{number} {host} {hundredths}0\n").as_bytes())
            .expect("the witness's file can be written");
        thread::sleep(Duration::from_millis(50));
    }
}

fn print(lines: usize, width: usize) {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in 1..=lines {
        let text = format!("line {line}");
        let filling = ".".repeat(width.saturating_sub(text.len()));
        if writeln!(out, "{text}{filling}").is_err() {
            return;
        }
    }
    let _ = out.flush();
    eprintln!("printed {lines} lines");
}

/// The first process of a container is sent no signal that it has no handler for, so without this, stopping it would
/// take the whole grace period. The standard library has no handlers; the C library, which it stands on, does.
fn end_on_sigterm() {
    unsafe extern "C" {
        safe fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
        safe fn _exit(code: i32) -> !;
    }
    extern "C" fn end(_: i32) {
        _exit(0)
    }
    const SIGTERM: i32 = 15;
    signal(SIGTERM, end);
}
