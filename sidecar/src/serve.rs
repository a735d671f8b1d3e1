//! `serve`: from a configuration to a running server, and its end.
//!
//! The order matters: descriptors that were leaked into the process are closed before anything of its own is open, the
//! socket is taken before the engine is loaded (a second sidecar ends at once), and the service manager hears of us when
//! the engine has passed its self-test.

use std::env;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use nexus_protocol::limits::{MAX_CONNECTIONS, WORKER_END_MS};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode as FileMode, umask};
use nix::unistd::dup2_stdout;

use crate::cli::Listen;
use crate::config::{Config, ConfigArgs, ConfigErrors, Isolation, LiveConfig, Loaded};
use crate::error::StartError;
use crate::exit::ExitCode;
use crate::http::{Http, Status};
use crate::lifecycle::parent::Parent;
use crate::lifecycle::signals::Signals;
use crate::lifecycle::systemd::{self, Notifier};
use crate::lifecycle::{Exit, Lifecycle, interrupted, parent_of};
use crate::observe::logging::{self, Layout};
use crate::os;
use crate::runtime::Runtime;
use crate::segments;
use crate::server::listen::{self, Audience, Bound};
use crate::server::{Mode, Server, Surroundings, door};
use crate::textfile;
use crate::walls::{Clients, Fleet, Household};

/// Descriptors for as many connections as are taken, and some for the process itself; the usual soft limit is 1024.
const WANTED_DESCRIPTORS: u64 = 4096;
/// What the process itself opens, connections aside: cache, images, threads' own.
const OWN_DESCRIPTORS: u64 = 64;

/// Serves until the parent is gone, or until a signal says so. `args`: by which the configuration is read again.
pub fn serve(listen: &Listen, args: &ConfigArgs, loaded: Loaded) -> Result<ExitCode, StartError> {
    // fails only when a logger is there already, which then is as good
    let _ = logging::init(loaded.config.log, Layout::detect(loaded.config.log_json));
    let place = Place::find(listen)?;
    os::close_inherited(&place.descriptor().into_iter().collect::<Vec<_>>());
    let descriptors = settle_process();
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    if let Some(plan) = crate::faults::planned() {
        log::warn!("faults are planned: {plan}");
    }
    loaded.describe().lines().for_each(|line| log::debug!("configuration: {line}"));
    let mode = place.mode();
    if mode == Mode::Service && descriptors < MAX_CONNECTIONS as u64 + OWN_DESCRIPTORS {
        log::warn!(
            "only {descriptors} files may be open at once, which is enough for about {} of {MAX_CONNECTIONS} connections: \
             raise LimitNOFILE= of the unit, or ulimit -Hn",
            descriptors.saturating_sub(OWN_DESCRIPTORS)
        );
    }
    let io = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
    let signals = Signals::install(mode).map_err(io("cannot take signals"))?;
    let parent = parent_of(mode);
    let notifier = Notifier::from_env();
    // before the engine: a socket that is in use, or is none, needs no engine to say so
    let source = place.open(&loaded.config)?;
    let status = Arc::new(Status::default());
    let _http = match &loaded.config.http_listen {
        Some(endpoint) => {
            let http = Http::bind(endpoint, &loaded.config.allow_uids)?;
            log::info!("HTTP on {endpoint}");
            http.start(status.clone()).map_err(io("cannot start the HTTP thread"))?
        }
        None => None,
    };
    if let Some(path) = &loaded.config.metrics_textfile {
        textfile::start(path, status.clone())?;
        log::info!("metrics are written to {}", path.display());
    }
    // before the first segment of our own
    match segments::sweep() {
        0 => {}
        n => log::info!("shared memory segments that dead sidecars had left and that are removed: {n}"),
    }
    let exit = Arc::new(Exit::new().map_err(io("cannot make a socket pair"))?);
    if !loaded.config.enable_aot {
        log::warn!("enableAOT is false: handlers are interpreted, some hundred times slower");
    }
    let told = introduction(&place, &loaded.config);
    let served = Serving { args, config: loaded.config, mode, source, status, exit, told, signals, parent, notifier };
    match served.config.isolation {
        Isolation::None if served.config.require_sandbox => {
            Err(StartError::Sandbox { missing: "a process of its own (isolation is none)".into() })
        }
        Isolation::None => served.alone(),
        Isolation::Shared | Isolation::Connection => served.behind_walls(),
    }
}

/// All that is needed to serve, wherever the guests run.
struct Serving<'a> {
    args: &'a ConfigArgs,
    config: Config,
    mode: Mode,
    source: Source,
    status: Arc<Status>,
    exit: Arc<Exit>,
    told: String,
    signals: Signals,
    parent: Option<Parent>,
    notifier: Notifier,
}

impl Serving<'_> {
    /// In this process.
    fn alone(self) -> Result<ExitCode, StartError> {
        let Self { args, config, mode, source, status, exit, told, signals, parent, notifier } = self;
        let io = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
        let cache_dir = config.cache_dir.clone();
        let runtime = Arc::new(Runtime::new(config).map_err(|e| StartError::Engine(Box::new(e)))?);
        let server = Server::new(runtime.clone(), mode, exit.clone(), Surroundings::alone());
        let server = server.map_err(io("cannot make the server"))?;
        let _bound = match source {
            Source::Parent(stream) => {
                server.adopt(stream).map_err(io("cannot use the parent's socket"))?;
                None
            }
            Source::Listener(listener, bound) => {
                let listener = door::Source::Listener(listener);
                server.with_poller(|p| p.listen(listener)).map_err(io("cannot listen"))?;
                bound
            }
        };
        server.start().map_err(io("cannot start the workers"))?;
        status.serving(server.clone());
        is_ready(&told, cache_dir.filter(|_| runtime.keeps_handlers()));
        notifier.ready();
        let mut reload = || {
            reload(args, &runtime.config, |config| {
                runtime.config.replace(config);
                server.reconfigure();
            });
        };
        let served = server.clone();
        let patience = None;
        let code = Lifecycle { server: served, signals, exit, parent, notifier, patience, reload: &mut reload }.watch();
        server.remove_segment_names();
        runtime.flush();
        Ok(code)
    }

    /// In workers.
    fn behind_walls(self) -> Result<ExitCode, StartError> {
        let Self { args, config, mode: _, source, status, exit, told, signals, parent, notifier } = self;
        // where the socket is lives as long as this
        let (clients, _bound) = match source {
            Source::Parent(stream) => (Clients::Parent(stream), None),
            Source::Listener(listener, bound) => (Clients::Listener(listener), bound),
        };
        let household = Arc::new(Household::open(&config)?);
        let fleet = Fleet::start(household.clone(), &config, clients, exit.clone())?;
        let started = loop {
            if let Some(code) = exit.announced().or_else(|| interrupted(&signals, parent.as_ref())) {
                break Ok(Some(code));
            }
            match fleet.has_started() {
                Some(Ok(())) => break Ok(None),
                Some(Err(error)) => break Err(error),
                None => {}
            }
        };
        match started {
            Ok(None) => {}
            Ok(Some(code)) => {
                fleet.end();
                return Ok(code);
            }
            Err(error) => {
                fleet.end();
                return Err(error);
            }
        }
        status.serving(fleet.clone());
        is_ready(&told, config.cache_dir.clone().filter(|_| household.keeps_handlers()));
        notifier.ready();
        let config = LiveConfig::new(config);
        let mut reload = || {
            reload(args, &config, |new| {
                fleet.reload(&new);
                config.replace(new);
            });
        };
        let server = fleet.clone();
        let patience = || Duration::from_millis(config.drain_timeout_ms.saturating_add(WORKER_END_MS));
        let patience: Option<&dyn Fn() -> Duration> = Some(&patience);
        let code = Lifecycle { server, signals, exit, parent, notifier, patience, reload: &mut reload }.watch();
        // what workers have left to be kept
        household.settle();
        fleet.end();
        household.flush();
        Ok(code)
    }
}

fn is_ready(told: &str, cache_dir: Option<PathBuf>) {
    match cache_dir {
        Some(dir) => log::info!("ready: {told}, cache in {}", dir.display()),
        None => log::info!("ready: {told}, cache in memory only"),
    }
}

/// Who serves, where and with what: the first thing that somebody looks for in a log.
fn introduction(place: &Place<'_>, config: &Config) -> String {
    let place = match place {
        Place::Parent(fd) => format!("the parent on descriptor {fd}"),
        Place::Path(path) => path.display().to_string(),
        Place::Activated(fd) => format!("the service manager's socket on descriptor {fd}"),
    };
    let (version, pid) = (env!("CARGO_PKG_VERSION"), process::id());
    format!("nexus-sidecar {version}, pid {pid}, serves {place}; up to {} instances", config.max_instances)
}

/// What holds for the whole process from here on. Returns how many descriptors it may have.
pub(crate) fn settle_process() -> u64 {
    os::bound_heap();
    // files and sockets that we make are nobody else's
    umask(FileMode::from_bits_truncate(0o077));
    // a library that prints must not reach whoever reads our standard output
    if let Err(e) = dup2_stdout(io::stderr()) {
        log::warn!("cannot turn standard output to standard error: {e}");
    }
    if let Err(e) = os::give_way_when_told() {
        log::warn!("no thread will give way to others: {e}");
    }
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    let wanted = WANTED_DESCRIPTORS.min(hard);
    if soft >= wanted {
        return soft;
    }
    if let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        log::debug!("cannot raise the number of descriptors: {e}");
        return soft;
    }
    wanted
}

/// Reads the configuration again, and has it put in force. What is wrong changes nothing.
fn reload(args: &ConfigArgs, old: &Config, put: impl FnOnce(Config)) {
    let loaded = match args.load(env::vars_os()) {
        Ok(loaded) => loaded,
        Err(errors) => return refuse_reload(&errors),
    };
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    let (config, changes) = match loaded.over(old) {
        Ok(reloaded) => reloaded,
        Err(errors) => return refuse_reload(&errors),
    };
    for key in &changes.ignored {
        log::warn!("{key} has changed, which takes effect at the next start");
    }
    log::set_max_level(config.log);
    put(config);
    match changes.applied.as_slice() {
        [] => log::info!("configuration read again: nothing has changed"),
        keys => log::info!("configuration read again; changed: {}", keys.join(", ")),
    }
}

fn refuse_reload(errors: &ConfigErrors) {
    for error in errors.iter() {
        log::error!("{error}");
    }
    log::error!("the configuration was not read again; the old one stays");
}

/// Where the clients come from, found but not open yet.
enum Place<'a> {
    Parent(RawFd),
    Path(&'a std::path::Path),
    Activated(RawFd),
}

enum Source {
    Parent(UnixStream),
    Listener(UnixListener, Option<Bound>),
}

impl<'a> Place<'a> {
    fn find(listen: &'a Listen) -> Result<Self, StartError> {
        Ok(match listen {
            Listen::Fd(fd) => Self::Parent(*fd),
            Listen::Path(path) => Self::Path(path),
            Listen::Activated => {
                let found = systemd::listen_fd(|name| env::var(name).ok(), process::id());
                Self::Activated(found.map_err(StartError::Activation)?)
            }
        })
    }

    fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Parent(fd) | Self::Activated(fd) => Some(*fd),
            Self::Path(_) => None,
        }
    }

    fn mode(&self) -> Mode {
        match self {
            Self::Parent(_) => Mode::Child,
            Self::Path(_) | Self::Activated(_) => Mode::Service,
        }
    }

    fn open(&self, config: &Config) -> Result<Source, StartError> {
        match self {
            Self::Parent(fd) => {
                let stream = os::adopt_socket(*fd).map_err(|source| StartError::NotASocket { fd: *fd, source })?;
                Ok(Source::Parent(stream))
            }
            Self::Activated(fd) => {
                let adopted = os::adopt_listener(*fd);
                let listener = adopted.map_err(|source| StartError::NotAListener { fd: *fd, source })?;
                Ok(Source::Listener(listener, None))
            }
            Self::Path(path) => {
                let audience = if config.allow_uids.is_empty() { Audience::Own } else { Audience::Listed };
                let (listener, bound) = listen::bind(path, audience)?;
                Ok(Source::Listener(listener, Some(bound)))
            }
        }
    }
}
