//! Tests of the store as a whole: each opens real stores, on a disk in memory or in a temporary folder.

mod basics;
mod damage;
mod full;
mod journal;
mod mount;
mod power;
mod restore;
mod support;
