//! tug
fn main() {}
