//! How this very program is executed once more.

use std::process::Command;

/// A command that executes this program, whatever has become of the file that it was started from.
pub fn own_program() -> Command {
    Command::new("/proc/self/exe")
}
