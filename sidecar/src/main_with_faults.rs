//! The same program; a file of its own, since cargo wants one for each binary.

#[path = "main.rs"]
mod program;

fn main() {
    program::main();
}
