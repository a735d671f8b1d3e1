//! The supervisor's side of a worker: it is started, told what to do, listened to, and reaped.
//!
//! ```text
//!           fleet -- connections, by descriptor ------> worker
//!                mouth -- commands, by ipc-channel ---> worker
//!                 ear <-- words of a fixed length ----- worker
//!              shelves <-- digests, and sources --- worker      two threads, where there is a cache on disk
//!               names <-- segments, asked for --------- worker
//! ```
//! The kernel ends a worker with the thread that made it. Whatever it does, no thread here does more for it than its channel is there
//! for, and nobody else waits for any of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use nexus_protocol::limits::{CACHE_FLUSH_MS, COMPILE_AGAIN_MS, WORKER_END_MS, WORKER_START_MS};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, Pid, access};

use super::compilations::{Compilations, Job};
use super::copies::Copies;
use super::handover::{Handed, Untaken};
use super::line::Line;
use super::page::Page;
use super::remote::{Remote, Stage};
use super::words::{Beginning, Command, SAID_BYTES, Said, Trade};
use super::{compile, lost, names, worker};
use crate::cache::disk::DiskTier;
use crate::cache::handle::HandleKey;
use crate::cache::{LowerTier, shelf};
use crate::config::Config;
use crate::engine;
use crate::error::StartError;
use crate::exit::ExitCode;
use crate::lifecycle::Served;
use crate::os;
use crate::own_program::own_program;
use crate::runtime::engine_options;
use crate::server::door::Whose;

/// The environment of a worker: nothing of what whoever started the sidecar may have put there, but for where a single file has unpacked
/// its tree (`sidecar/launcher`).
const KEPT_VARIABLES: [&str; 5] =
    ["JOURNAL_STREAM", "RUST_BACKTRACE", "HOME", "XDG_CACHE_HOME", crate::faults::VARIABLE];
/// Between two looks at a worker that starts or ends.
const LOOK_SLICE: Duration = Duration::from_millis(20);
const START_PATIENCE: Duration = Duration::from_millis(WORKER_START_MS);
const END_PATIENCE: Duration = Duration::from_millis(WORKER_END_MS);
/// For each part of what is said to one that compiles, and of what it says.
const COMPILE_PATIENCE: Duration = Duration::from_millis(2 * COMPILE_AGAIN_MS);
/// More than the making of a worker takes, at this end: what is made of them on the way cannot do without in every place.
const DESCRIPTORS: usize = 32;
/// As long as an address may be, without what is behind the directory in it.
const MAX_TEMP_DIR_BYTES: usize = 80;

/// Why there is no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstarted {
    /// It has ended by itself and has said why, or the sidecar is to end.
    Ended(ExitCode),
    /// It was ended from outside or by what it did, or stood still: the next one may do better.
    Lost(ExitCode),
}

/// What workers have in common: the cache and its key.
pub struct Household {
    engine: [u8; 32],
    disk: Option<Arc<DiskTier>>,
    handles: HandleKey,
    /// One of each worker that is there.
    pages: Arc<Mutex<Vec<Weak<Page>>>>,
    pub compilations: Arc<Compilations>,
}

impl Household {
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let io = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
        let engine = engine::digest_of(&engine_options(config)).map_err(|e| StartError::Engine(Box::new(e)))?;
        let (disk, handles) = DiskTier::open_with_key(config.cache_dir.as_deref(), engine, config.max_cache_size_bytes)
            .map_err(io("cannot make a key"))?;
        let (disk, pages) = (disk.map(Arc::new), Arc::<Mutex<Vec<Weak<Page>>>>::default());
        if let Some(disk) = &disk {
            let pages = pages.clone();
            disk.tell(Box::new(move |counts| {
                let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
                pages.retain(|page| page.upgrade().inspect(|page| page.write_counts(counts)).is_some());
            }));
        }
        Ok(Self { engine, disk, handles, pages, compilations: Arc::default() })
    }

    /// A page for another worker, which writes to it: none is shared.
    fn page(&self) -> io::Result<Arc<Page>> {
        let page = Arc::new(Page::new()?);
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&page));
        if let Some(disk) = &self.disk {
            page.write_counts(disk.counts());
        }
        Ok(page)
    }

    pub fn keeps_handlers(&self) -> bool {
        self.disk.is_some()
    }

    /// Waits a while for what was handed over to be compiled. Nothing is from here on.
    pub fn settle(&self) {
        self.compilations.settle(Duration::from_millis(CACHE_FLUSH_MS));
        self.compilations.close();
    }

    /// Has what was compiled written.
    pub fn flush(&self) {
        if let Some(disk) = &self.disk {
            disk.flush();
        }
    }
}

/// See the module.
pub struct Supervisor {
    pub remote: Arc<Remote>,
    child: Arc<Mutex<Child>>,
    /// They end with the worker.
    attendants: Mutex<Vec<JoinHandle<()>>>,
    /// By which connections are handed over.
    line: Line,
    untaken: Arc<Untaken>,
    copies: Arc<Copies>,
    page: Arc<Page>,
    /// Where one that compiles has them from.
    sources: Option<UnixStream>,
    /// It is ended from here: nothing to be said of it.
    dismissed: Arc<AtomicBool>,
}

/// How a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: ExitCode,
    /// It was ended from outside, or by what it did.
    pub lost: bool,
}

/// Hears of the end of a worker, once.
pub type OnEnd = Box<dyn FnOnce(Ended) + Send>;

/// The ends that stay here.
struct Ends {
    line: Line,
    reads: UnixStream,
    writes: UnixStream,
    names: Line,
}

impl Supervisor {
    /// Starts a worker and waits until it can serve, or does not in time. `interrupted`: whether there is no need of it any more.
    /// It is given no client by this.
    pub fn start(
        household: &Household,
        config: &Config,
        trade: Trade,
        on_end: OnEnd,
        interrupted: &dyn Fn() -> Option<ExitCode>,
    ) -> Result<Result<Self, Unstarted>, StartError> {
        let io = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
        let until = Instant::now() + START_PATIENCE;
        let given_up = || match interrupted() {
            Some(code) => Some(Unstarted::Ended(code)),
            None if Instant::now() < until => None,
            None => {
                log::error!("the worker does not serve after {} s: it is killed", START_PATIENCE.as_secs());
                Some(Unstarted::Lost(ExitCode::Stuck))
            }
        };
        os::has_descriptors(DESCRIPTORS).map_err(io("cannot make what a worker is reached by"))?;
        let (server, name) = channel().map_err(io(
            "cannot make a channel to the worker in the directory for temporary files (TMPDIR names another one)",
        ))?;
        let page = household.page().map_err(io("cannot make a file in memory"))?;
        let (mut child, ends) = spawn(&name, &page, trade).map_err(io("cannot start the worker"))?;
        // waits for the worker to connect, and has no time limit
        let (attached_to, attach) = mpsc::channel();
        let accept = move || drop(attached_to.send(server.accept().map(|(_, commands)| commands)));
        thread::Builder::new().name("attach".into()).spawn(accept).map_err(io("cannot start a thread"))?;
        let (attached, given_up_as) = loop {
            if let Some(unstarted) = given_up() {
                break (false, Some(unstarted));
            }
            if is_heard_within(&ends.line, LOOK_SLICE) {
                break (hear_from(&ends.line) == Some(Some(Said::Attached)), None);
            }
        };
        if !attached {
            // it will not come any more: somebody else has to, or that thread waits for ever
            let _ = IpcSender::<IpcSender<Command>>::connect(name);
        }
        let commands = attach.recv_timeout(END_PATIENCE).ok().and_then(Result::ok).filter(|_| attached);
        let Some(commands) = commands else {
            if given_up_as.is_some() {
                let _ = child.kill();
            }
            let status = end_of(&Mutex::new(child)).map_err(io("cannot wait for the worker"))?;
            if let Some(unstarted) = given_up_as {
                return Ok(Err(unstarted));
            }
            let code = code_of(status);
            return Ok(Err(if was_lost(status) { Unstarted::Lost(code) } else { Unstarted::Ended(code) }));
        };
        let Household { engine, disk, handles, .. } = household;
        let engine = *engine;
        let beginning = Beginning {
            config: config.clone(),
            trade,
            pid: std::process::id(),
            handles: if trade == Trade::Compile { [0; 32] } else { handles.bytes() },
            keeps_handlers: disk.is_some(),
            descriptors_come: os::descriptors_come(),
        };
        let (mouth, given) = mpsc::channel::<Command>();
        let speak = move || given.into_iter().all(|command| commands.send(command).is_ok());
        thread::Builder::new().name("mouth".into()).spawn(speak).map_err(io("cannot start a thread"))?;
        let Ends { line, reads, writes, names } = ends;
        let remote = Arc::new(Remote::new(mouth, page.clone()));
        remote.hear(Some(Said::Attached));
        remote.command(Command::Begin(Box::new(beginning)));
        let child = Arc::new(Mutex::new(child));
        let mut attendants = Vec::new();
        let mut attend = |name: &str, life: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.into()).spawn(life).map_err(io("cannot start a thread"))?;
            attendants.push(thread);
            Ok::<_, StartError>(())
        };
        let sources = if trade == Trade::Compile {
            drop((writes, names));
            reads.set_read_timeout(Some(COMPILE_PATIENCE)).map_err(io("cannot use a socket pair"))?;
            reads.set_write_timeout(Some(COMPILE_PATIENCE)).map_err(io("cannot use a socket pair"))?;
            Some(reads)
        } else {
            if let Some(disk) = disk {
                let (disk, compilations) = (disk.clone(), household.compilations.clone());
                attend("shelf-reads", Box::new(move || shelf::serve_reads(&disk, &reads)))?;
                let most = config.max_source_bytes;
                let keep = move |mode, source| compilations.add(&engine, mode, source);
                attend("shelf-writes", Box::new(move || shelf::serve_writes(most, &writes, keep)))?;
            }
            let max_arena_bytes = config.max_arena_bytes;
            attend("names", Box::new(move || names::make_for(&names, max_arena_bytes)))?;
            None
        };
        let ear = line.try_clone().map_err(io("cannot copy a descriptor"))?;
        let (heard_by, reaped) = (remote.clone(), child.clone());
        let untaken = Arc::<Untaken>::default();
        let taken = untaken.clone();
        let ended = Arc::<OnceLock<Ended>>::default();
        let dismissed = Arc::<AtomicBool>::default();
        let (ends_as, on_purpose) = (ended.clone(), dismissed.clone());
        let copies = Arc::new(Copies::new().map_err(io("cannot make an epoll"))?);
        let (bell, rung) = UnixStream::pair().map_err(io("cannot make a socket pair"))?;
        let ended_ones = copies.clone();
        attend("copies", Box::new(move || ended_ones.let_go_of_ended(&rung)))?;
        let hear = move || {
            let _bell = bell;
            let how = listen_to(&ear, &heard_by, &taken, &reaped, &on_purpose);
            let _ = ends_as.set(how);
            heard_by.is_gone();
            on_end(how);
        };
        attend("ear", Box::new(hear))?;
        let this =
            Self { remote, child, attendants: Mutex::new(attendants), line, untaken, copies, page, sources, dismissed };
        // nothing of a client comes to a worker that is not sealed
        loop {
            match this.remote.after(Stage::Attached, LOOK_SLICE) {
                Stage::Ready(_) => break,
                Stage::Gone => {
                    this.end();
                    let ended = ended.get().copied();
                    let Ended { code, lost } = ended.unwrap_or(Ended { code: ExitCode::Internal, lost: false });
                    return Ok(Err(if lost { Unstarted::Lost(code) } else { Unstarted::Ended(code) }));
                }
                Stage::Starting | Stage::Attached => {
                    if let Some(unstarted) = given_up() {
                        this.end();
                        return Ok(Err(unstarted));
                    }
                }
            }
        }
        Ok(Ok(this))
    }

    /// Gives it the connection of the parent.
    pub fn serve_parent(&self, stream: &UnixStream) -> io::Result<()> {
        self.line.hand_over(stream, Whose::Parent)
    }

    /// Gives it a connection. Waits while it takes none. `greeted`: by a worker that is gone.
    pub fn serve(&self, stream: Arc<UnixStream>, greeted: bool) {
        let number = match self.copies.keep(stream.clone()) {
            Ok(number) => number,
            Err(e) => return log::error!("a connection is closed, since no copy of it can be kept: {e}"),
        };
        // until its client is greeted there is nothing that could go on
        self.page.write_mark(number, u64::from(!greeted));
        self.untaken.hand_over(&self.line, Handed { stream, greeted, number });
    }

    /// Has a source compiled, by a worker that is there for that, and the bytecode kept. An error: it is of no use any more.
    pub fn compile(&self, household: &Household, job: &Job) -> io::Result<()> {
        let (Some(disk), Some(sources)) = (&household.disk, &self.sources) else { return Ok(()) };
        if let Some(body) = compile::ask(sources, job.mode, &job.source, disk.max_entry_bytes())? {
            disk.write(&Arc::new(shelf::handler_of(&household.engine, &job.digest, &body)?));
        }
        Ok(())
    }

    /// Once it is gone: connections that another one can go on with. It has not taken them, or they go on; see `lost`. All others end.
    pub fn take_connections(&self) -> Vec<(Arc<UnixStream>, bool)> {
        let untaken = self.untaken.take_all();
        let mut copies = self.copies.take_all();
        untaken.iter().for_each(|handed| drop(copies.remove(&handed.number)));
        let go_on = lost::those_that_go_on(&self.page, copies).into_iter().map(|stream| (stream, true));
        go_on.chain(untaken.into_iter().map(|handed| (handed.stream, handed.greeted))).collect()
    }

    pub fn is_gone(&self) -> bool {
        self.remote.is_gone_for_good()
    }

    pub fn reload(&self, config: &Config) {
        self.remote.reload(config);
    }

    fn attendants(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.attendants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the worker as something that is lost.
    pub fn kill(&self) {
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    /// Ends the worker if it is still there, and takes in what it has left.
    pub fn end(&self) {
        self.dismissed.store(true, Ordering::Release);
        {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            // once it was waited for, its number may be another's, and this does nothing
            let _ = child.kill();
            let _ = child.wait();
        }
        let attendants = std::mem::take(&mut *self.attendants());
        for attendant in attendants {
            let _ = attendant.join();
        }
    }
}

impl Served for Supervisor {
    fn drain(&self) {
        self.remote.drain();
    }

    fn is_draining(&self) -> bool {
        self.remote.is_draining()
    }

    fn prod(&self) {
        self.remote.prod();
    }

    fn pulse(&self) -> Option<crate::server::Pulse> {
        self.remote.pulse()
    }

    fn has_stuck_run(&self) -> bool {
        self.remote.has_stuck_run()
    }

    fn is_alive(&self, patience: Duration) -> bool {
        self.remote.is_alive(patience)
    }

    fn prometheus(&self) -> Option<String> {
        self.remote.prometheus()
    }

    fn is_ready(&self) -> bool {
        self.remote.is_ready()
    }

    fn walls(&self) -> String {
        self.remote.walls()
    }
}

/// Executes this program as a worker, with the other ends under the numbers that it expects them at, and nothing else.
fn spawn(name: &str, page: &Page, trade: Trade) -> io::Result<(Child, Ends)> {
    let (line, its_line) = Line::pair()?;
    let (reads, its_reads) = UnixStream::pair()?;
    let (writes, its_writes) = UnixStream::pair()?;
    let (names, its_names) = Line::pair()?;
    let given: [OwnedFd; worker::DESCRIPTORS.len()] =
        [its_line.into(), its_reads.into(), its_writes.into(), its_names.into(), page.try_clone()?.into()];
    let mappings = given.into_iter().zip(worker::DESCRIPTORS);
    let mut command = process::Command::new(own_program()?);
    command
        // as it stands in lists of processes
        .arg0(if trade == Trade::Compile { "nexus-compiler" } else { "nexus-sidecar" })
        .args([worker::NAME, &Pid::this().to_string(), name])
        .env_clear()
        .envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .current_dir("/")
        .stdin(Stdio::null())
        .fd_mappings(mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect())
        .map_err(io::Error::other)?;
    Ok((command.spawn()?, Ends { line, reads, writes, names }))
}

/// A channel that a worker finds by a name in the directory for temporary files.
fn channel() -> io::Result<(IpcOneShotServer<IpcSender<Command>>, String)> {
    let dir = std::env::temp_dir();
    // what the library takes for granted about it
    if dir.to_str().is_none_or(|dir| dir.len() > MAX_TEMP_DIR_BYTES || dir.contains('\0')) {
        let why = format!("{} is longer than {MAX_TEMP_DIR_BYTES} bytes, or no UTF-8", dir.display());
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, why));
    }
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { &dir };
    access(dir, AccessFlags::W_OK | AccessFlags::X_OK)
        .and_then(|()| if dir.is_dir() { Ok(()) } else { Err(Errno::ENOTDIR) })
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{}: {}", dir.display(), e.desc())))?;
    // and it panics where its error has no number
    let made = std::panic::catch_unwind(IpcOneShotServer::new);
    made.unwrap_or_else(|_| Err(io::Error::other(format!("{} is full, perhaps", dir.display()))))
}

fn is_heard_within(line: &Line, patience: Duration) -> bool {
    let mut fds = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO)).is_ok_and(|ready| ready > 0)
}

/// The next word of a worker, if it makes sense. None: it is gone.
fn hear_from(line: &Line) -> Option<Option<Said>> {
    // one more than a word has, so that what is longer is seen to be
    let mut bytes = [0; SAID_BYTES + 1];
    match line.hear(&mut bytes) {
        Ok(len @ 1..) => Some(bytes.get(..len).and_then(Said::parse)),
        _ => None,
    }
}

/// The life of the ear: until the worker is gone. How it has ended.
fn listen_to(line: &Line, remote: &Remote, untaken: &Untaken, child: &Mutex<Child>, dismissed: &AtomicBool) -> Ended {
    while let Some(said) = hear_from(line) {
        untaken.are_taken(remote.taken());
        if said != Some(Said::Taken) {
            remote.hear(said);
        }
    }
    untaken.are_taken(remote.taken());
    match end_of(child) {
        Ok(_) if dismissed.load(Ordering::Acquire) => Ended { code: ExitCode::Ok, lost: false },
        Ok(status) => Ended { code: code_of(status), lost: was_lost(status) },
        Err(_) => Ended { code: ExitCode::Internal, lost: false },
    }
}

/// How a worker has ended that says no more: one that does not end is of no use to anybody, and is killed.
fn end_of(child: &Mutex<Child>) -> io::Result<ExitStatus> {
    let until = Instant::now() + END_PATIENCE;
    loop {
        // whoever else wants its end has a turn in between
        let mut this = child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = this.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= until {
            this.kill()?;
            return this.wait();
        }
        drop(this);
        thread::sleep(LOOK_SLICE / 10);
    }
}

fn was_lost(status: ExitStatus) -> bool {
    status.signal().is_some()
}

/// What the sidecar ends with when its worker has ended like that.
fn code_of(status: ExitStatus) -> ExitCode {
    match (status.code().and_then(ExitCode::of_number), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", |signal| signal.as_str());
            log::error!("the worker was ended by {name}");
            ExitCode::Stuck
        }
        (None, None) => ExitCode::Internal,
    }
}
