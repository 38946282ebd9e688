//! Archives that were tampered with, and transfers that break off: over loopback TLS, with stores in memory.

mod archives;
mod transfers;
mod world;
