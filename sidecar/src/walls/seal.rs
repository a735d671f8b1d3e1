//! What stands between a worker and the machine: how it is put up, and which parts of it hold.
//!
//! ```text
//!   no new privileges, landlock without a rule (before the first thread) -> threads, guests -> no core dumps, seccomp (all threads)
//! ```
//! A kernel that lacks a part leaves the others: what is missing is told, and whoever wants all of them says `requireSandbox`.
//! Nothing of it can be taken back.

use std::collections::BTreeMap;
use std::fmt;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::policy::{self, Allowed, Arg};
use crate::faults::{self, Point};
use crate::sealed::{NO_NEW_PRIVS, SECCOMP, UNDUMPABLE, Walls};

/// A part that is missing, and what the kernel has said.
pub type Lack = (&'static str, String);

/// The first half, of the calling thread and all that it makes: for a process that has no other thread.
pub fn close_paths(walls: &mut Walls) -> Result<(), Lack> {
    faults::io(Point::Wall).map_err(|e| ("no new privileges", e.to_string()))?;
    prctl::set_no_new_privs().map_err(|e| ("no new privileges", e.to_string()))?;
    walls.hold(NO_NEW_PRIVS);
    let failed = |e: &dyn fmt::Display| ("landlock", e.to_string());
    faults::io(Point::Wall).map_err(|e| failed(&e))?;
    // what a kernel does not know of is left out
    let version = ABI::V9;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(version))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(version)))
        .and_then(|rules| rules.scope(Scope::from_all(version)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.restrict_self())
        .map_err(|e| failed(&e))?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, landlock) => Err(failed(&format!("{landlock:?}"))),
        (_, LandlockStatus::Available { effective_abi, .. }) => {
            walls.hold_landlock(effective_abi as u64);
            Ok(())
        }
        (_, landlock) => Err(failed(&format!("{landlock:?}"))),
    }
}

/// The second half, of all threads that there are and will be.
/// `allowed`: the list of its class.
pub fn close_calls(walls: &mut Walls, allowed: Vec<Allowed>) -> Result<(), Lack> {
    faults::io(Point::Wall).map_err(|e| ("no core dumps", e.to_string()))?;
    prctl::set_dumpable(false).map_err(|e| ("no core dumps", e.to_string()))?;
    walls.hold(UNDUMPABLE);
    faults::io(Point::Wall).map_err(|e| ("seccomp", e.to_string()))?;
    for filter in filters(allowed).map_err(|e| ("seccomp", e.to_string()))? {
        seccompiler::apply_filter_all_threads(&filter).map_err(|e| ("seccomp", format!("{e:?}")))?;
    }
    walls.hold(SECCOMP);
    Ok(())
}

/// What of it this kernel has, found out by a thread that ends with it. A process can't be made undumpable for a try.
pub fn possible_here() -> Walls {
    let find_out = || {
        let mut walls = Walls::default();
        let _ = close_paths(&mut walls);
        walls.hold(UNDUMPABLE);
        let list = policy::engine_worker(std::process::id());
        let applied = filters(list).is_ok_and(|all| all.iter().all(|f| seccompiler::apply_filter(f).is_ok()));
        if applied {
            walls.hold(SECCOMP);
        }
        walls
    };
    std::thread::spawn(find_out).join().unwrap_or_default()
}

/// The last one first in force: of all that are there, the kernel takes the strictest word.
fn filters(allowed: Vec<Allowed>) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let refuse = |calls: &[libc::c_long], number: i32| {
        let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
        compile(rules, SeccompAction::Allow, SeccompAction::Errno(number as u32))
    };
    let known = policy::REFUSED.iter().chain(policy::ABSENT).map(|call| Allowed { call: *call, when: Vec::new() });
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Allowed { call, when } in allowed.into_iter().chain(known) {
        let when: Result<Vec<SeccompRule>, _> = when.iter().map(|all| rule(all)).collect();
        rules.insert(call, when?);
    }
    Ok(vec![
        refuse(policy::REFUSED, libc::EACCES)?,
        refuse(policy::ABSENT, libc::ENOSYS)?,
        compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)?,
    ])
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, action, arch)?.try_into()
}

fn rule(all: &[Arg]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions: Result<Vec<SeccompCondition>, _> = all
        .iter()
        .map(|arg| match *arg {
            Arg::Is(index, value) => SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value),
            Arg::IsInt(index, value) => {
                SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())
            }
            Arg::Without(index, bits) => {
                SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits), 0)
            }
        })
        .collect();
    SeccompRule::new(conditions?)
}
