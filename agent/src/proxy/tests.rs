//! A whole balancer over real sockets on loopback addresses.

mod failures;
mod ports;
mod streams;
mod survival;
mod world;

pub(crate) use world::own_address;
