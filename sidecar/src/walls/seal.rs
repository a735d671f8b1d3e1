//! What stands between a worker and the machine.

/// Which parts of a seal hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walls {
    bits: u64,
}

impl Walls {
    pub fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    /// In one line.
    pub fn describe(self) -> String {
        format!("isolation shared: guests run in a worker; walls {:#x}", self.bits)
    }
}
