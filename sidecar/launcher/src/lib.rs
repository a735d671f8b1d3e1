//! The decisions of the launcher: where its tree is, what a single file carries, how a file of machine code lies in memory, and what
//! each file of the tree has to be. No system calls, no heap, and nothing that needs to be relocated, because the launcher that uses this runs before
//! anything relocates it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod image;
pub mod parcel;
pub mod place;
pub mod sum;
