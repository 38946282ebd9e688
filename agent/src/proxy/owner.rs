//! Who listens on a port that we wanted: found in `/proc`, for the reason that is shown to people.

use std::fs;
use std::path::Path;

/// The program that listens on TCP port `port`, such as ``process 812 (`nginx`)``; `None` if it cannot be told: it is
/// gone, or not ours to look at.
///
/// Reads the file tables of all processes: not for every try.
pub(super) fn of_port(port: u16) -> Option<String> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| listening(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut holders = processes.filter(|process| holds_one_of(&process.path(), &sockets));
    holders.find_map(|process| {
        // Beside the processes there are other directories, such as `self`.
        let id: u32 = process.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("process {id} (`{}`)", name.trim_end().escape_default()))
    })
}

/// The inodes of the sockets that listen on `port`, from the text of `/proc/net/tcp`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    const LISTENING: &str = "0A";
    let of_line = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTENING;
        if is_it { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

fn holds_one_of(process: &Path, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    files
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_of_the_port_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n   \
             1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n   \
             2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 x\n   \
             3: broken\n";
        assert_eq!(listening(table, 8080), [4711]);
        assert_eq!(listening(table, 8081), [4713]);
        assert!(listening("", 8080).is_empty());
    }

    #[test]
    fn our_own_listener_is_ours() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = of_port(listener.local_addr().unwrap().port()).unwrap();
        assert!(owner.contains(&format!("process {} ", std::process::id())), "{owner}");
    }
}
