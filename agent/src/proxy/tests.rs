//! A whole balancer over real sockets on loopback addresses.

pub(crate) mod cluster;
mod failures;
mod peers;
mod ports;
mod silence;
mod streams;
mod survival;
mod world;

pub(crate) use world::own_address;
