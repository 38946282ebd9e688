//! Several Docker hosts, and what may happen to them.
#![allow(clippy::print_stdout, reason = "figures, for people who look")]

mod verbs;
