//! The shop: one program that plays four parts, so that the example needs nothing but a Rust compiler.
//!
//! | part | what it does | reachable as |
//! |---|---|---|
//! | `shop web` | answers `/` with the banner from its config, and passes `/api/…` on to the API | the published port |
//! | `shop api` | `POST /api/order/NAME` counts in the cache and remembers in the queue; `GET /api/orders` reads both | `api:8080` |
//! | `shop cache` | numbers in memory: `INCR key`, `GET key` | `cache:6379` |
//! | `shop queue` | lines in a file on a volume: `PUSH line`, `COUNT` | `queue:5672` |
//!
//! `shop ready HOST:PORT` is the health check: it connects, and exits with 0 when that works.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    match arguments.iter().skip(1).map(String::as_str).collect::<Vec<_>>()[..] {
        ["web"] => serve("0.0.0.0:8080", |stream| http(stream, web)),
        ["api"] => serve("0.0.0.0:8080", |stream| http(stream, api)),
        ["cache"] => {
            let numbers = Mutex::new(HashMap::new());
            serve("0.0.0.0:6379", move |stream| lines(stream, |line| cache(&numbers, line)))
        }
        ["queue"] => {
            let file = Mutex::new(fs::File::options().create(true).append(true).open("/data/orders")?);
            serve("0.0.0.0:5672", move |stream| lines(stream, |line| queue(&file, line)))
        }
        ["ready", address] => connect(address).map(drop),
        _ => Err(io::Error::other("usage: shop web | api | cache | queue | ready HOST:PORT")),
    }
}

// === the parts ===

fn web(method: &str, path: &str) -> io::Result<(u16, String)> {
    if !path.starts_with("/api/") {
        return Ok((200, fs::read_to_string("/etc/shop/banner.txt")?));
    }
    let mut upstream = connect("api:8080")?;
    write!(upstream, "{method} {path} HTTP/1.0\r\nhost: api\r\n\r\n")?;
    let mut answer = String::new();
    upstream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(502);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

fn api(method: &str, path: &str) -> io::Result<(u16, String)> {
    match (method, path.strip_prefix("/api/").unwrap_or(path)) {
        ("POST", order) if order.starts_with("order/") => {
            let name = &order["order/".len()..];
            let number = ask("cache:6379", &format!("INCR {name}"))?;
            ask("queue:5672", &format!("PUSH {name} {number}"))?;
            Ok((201, format!("{{\"item\":\"{name}\",\"number\":{number}}}\n")))
        }
        ("GET", "orders") => Ok((200, format!("{{\"orders\":{}}}\n", ask("queue:5672", "COUNT")?))),
        _ => Ok((404, "not found\n".to_owned())),
    }
}

fn cache(numbers: &Mutex<HashMap<String, u64>>, line: &str) -> io::Result<String> {
    let mut numbers = numbers.lock().map_err(|_| io::Error::other("poisoned"))?;
    Ok(match line.split_once(' ') {
        Some(("INCR", key)) => {
            let number = numbers.entry(key.to_owned()).or_default();
            *number += 1;
            number.to_string()
        }
        Some(("GET", key)) => numbers.get(key).copied().unwrap_or_default().to_string(),
        _ => "error".to_owned(),
    })
}

fn queue(file: &Mutex<fs::File>, line: &str) -> io::Result<String> {
    match line.split_once(' ') {
        Some(("PUSH", order)) => {
            let mut file = file.lock().map_err(|_| io::Error::other("poisoned"))?;
            writeln!(file, "{order}")?;
            file.sync_data()?;
            Ok("ok".to_owned())
        }
        _ => Ok(fs::read_to_string("/data/orders")?.lines().count().to_string()),
    }
}

// === the wire ===

fn serve(address: &str, answer: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {address}");
    let answer = std::sync::Arc::new(answer);
    for stream in listener.incoming() {
        let (stream, answer) = (stream?, answer.clone());
        std::thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("request failed: {error}");
            }
        });
    }
    Ok(())
}

fn http(stream: TcpStream, answer: fn(&str, &str) -> io::Result<(u16, String)>) -> io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or("GET"), words.next().unwrap_or("/"));
    let (status, body) = answer(method, path).unwrap_or_else(|error| (502, format!("{error}\n")));
    let length = body.len();
    write!(&stream, "HTTP/1.0 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn lines(stream: TcpStream, answer: impl Fn(&str) -> io::Result<String>) -> io::Result<()> {
    for line in BufReader::new(&stream).lines() {
        writeln!(&stream, "{}", answer(&line?)?)?;
    }
    Ok(())
}

fn ask(address: &str, question: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    writeln!(stream, "{question}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

/// Connects to the first address of `name` that answers; with several replicas behind a name there are several.
fn connect(name: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{name} has no address"));
    for address in name.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
