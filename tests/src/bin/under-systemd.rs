//! `under-systemd`: the units of `sidecar/deploy` under a running systemd, fact by fact.
//!
//! It boots a machine ([`nexus_tests::machine`]), installs sidecar and units as `sidecar/deploy/README.md` says, and looks.
//! `NEXUS_SIDECAR_BIN` is the sidecar; `NEXUS_BUILD_CACHE` the directory that its libraries and guest are in. Two things
//! differ from an installation, since the directory is a developer's: the path of the program, and `ProtectHome=tmpfs`
//! with the directory mounted into it instead of `ProtectHome=yes`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nexus_tests::machine::{Bind, Machine};
use nexus_tests::process::binary;
use nexus_tests::run::every_kind;
use nexus_tests::temp::TempDir;
use nexus_tests::{Client, Run};
use serde_json::json;

const PROGRAM: &str = "/opt/nexus-sidecar";
const SOCKET: &str = "/run/nexus-sidecar/sidecar.sock";
const SOON: Duration = Duration::from_secs(10);
/// Users of the test: a client that the service lists, and one that it does not.
const LISTED: &str = "1000";
const UNLISTED: &str = "1001";

type Fact<T = String> = Result<T, String>;
/// What is looked at, and how; it may have more to say.
type Named = (&'static str, fn(&Service) -> Fact);

struct Service {
    machine: Machine,
    units: TempDir,
    config: TempDir,
}

fn main() -> ExitCode {
    match facts() {
        Ok(count) => {
            println!("{count} facts hold under a running systemd");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FAILED {why}");
            ExitCode::FAILURE
        }
    }
}

fn facts() -> Fact<usize> {
    let service = Service::install()?;
    let facts: [Named; 12] = [
        ("the socket is there before the service", Service::socket_first),
        ("the first connection starts it; ready comes after the engine's self-test", Service::starts),
        ("it runs handlers of every kind", Service::works),
        ("a listed member of the group may connect, others may not", Service::audience),
        ("it has no privilege and sees little of the machine", Service::hardened),
        ("a reload applies what may change, and refuses a wrong file whole", Service::reloads),
        ("a wrong configuration at the start is in the journal, with key, value and bound", Service::refuses),
        ("a stop answers what is under way; the next connection starts it again", Service::stops),
        ("kill -9 is followed by a restart", Service::killed),
        ("frozen (SIGSTOP), it is killed and started again within WatchdogSec and a second", Service::frozen),
        ("with death for every system call that the unit denies, all of it works", Service::denied_is_death),
        ("for one user, by the user's own manager", Service::user),
    ];
    for (name, fact) in &facts {
        let began = Instant::now();
        let more = fact(&service).map_err(|why| format!("{name}: {why}\n{}", service.journal()))?;
        println!(
            "ok  {name} ({:.2} s){}{more}",
            began.elapsed().as_secs_f64(),
            if more.is_empty() { "" } else { ": " }
        );
    }
    Ok(facts.len())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn ensure(holds: bool, otherwise: impl Into<String>) -> Fact<()> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/deploy").join(name)
}

impl Service {
    fn install() -> Fact<Self> {
        let (units, config) = (TempDir::new(), TempDir::new());
        let cache = std::env::var("NEXUS_BUILD_CACHE").map_err(|_| "NEXUS_BUILD_CACHE is not set")?;
        for (from, to) in [("nexus-sidecar", "nexus-sidecar"), ("user/nexus-sidecar", "user/nexus-sidecar")] {
            for kind in ["service", "socket"] {
                let unit = fs::read_to_string(deploy(&format!("{from}.{kind}"))).map_err(text)?;
                let unit =
                    unit.replace("/usr/bin/nexus-sidecar", PROGRAM).replace("%h/.local/bin/nexus-sidecar", PROGRAM);
                let path = units.join(&format!("{to}.{kind}"));
                fs::create_dir_all(path.parent().ok_or("no directory")?).map_err(text)?;
                fs::write(path, unit).map_err(text)?;
            }
        }
        let drop_ins = units.join("nexus-sidecar.service.d");
        fs::create_dir(&drop_ins).map_err(text)?;
        let home = format!("[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths={cache}\n");
        fs::write(drop_ins.join("developer.conf"), home).map_err(text)?;
        let environment = format!("NEXUS_ALLOW_UIDS=0,{LISTED}\nNEXUS_CONFIG=/etc/nexus-sidecar/sidecar.toml\n");
        fs::write(config.join("environment"), environment).map_err(text)?;
        fs::write(config.join("sidecar.toml"), "maxInstances = 4\n").map_err(text)?;
        for open in [units.path().to_owned(), config.path().to_owned(), config.join("sidecar.toml")] {
            fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(text)?;
        }
        let machine = Machine::boot(&[
            Bind::read_only(&fs::canonicalize(binary()).map_err(text)?, PROGRAM),
            Bind::read_only(Path::new(&cache), &cache),
            Bind::writable(units.path(), "/etc/systemd/system"),
            Bind::writable(config.path(), "/etc/nexus-sidecar"),
        ])?;
        let service = Self { machine, units, config };
        // the directory of the build is reached through root's own
        service.shell(&format!(
            "chmod 711 /root; groupadd --system nexus-sidecar-clients && useradd -m -u {LISTED} -G nexus-sidecar-clients one && \
             useradd -m -u {UNLISTED} -G nexus-sidecar-clients two && useradd -m -u 1002 three"
        ))?;
        Ok(service)
    }

    fn shell(&self, script: &str) -> Fact {
        self.machine.shell(script).map_err(text)
    }

    fn show(&self, property: &str) -> Fact {
        self.shell(&format!("systemctl show -P {property} nexus-sidecar.service"))
    }

    fn journal(&self) -> String {
        let script =
            "journalctl --no-pager -o short-precise -u nexus-sidecar.service -u nexus-sidecar.socket | tail -n 40";
        format!("journal:\n{}", self.shell(script).unwrap_or_default())
    }

    /// Since `began`, a number of seconds.
    fn said_since(&self, began: &str) -> Fact {
        self.shell(&format!("journalctl --no-pager -o cat -u nexus-sidecar.service --since @{began}"))
    }

    fn now(&self) -> Fact {
        self.shell("date +%s")
    }

    /// Connects; the service manager starts the service for it.
    fn client(&self) -> Fact<Client> {
        let mut client = Client::over(self.machine.connect(SOCKET).map_err(text)?);
        client.set_patience(SOON);
        client.hello();
        Ok(client)
    }

    fn eventually(&self, what: &str, mut holds: impl FnMut() -> Fact<bool>) -> Fact<()> {
        let until = Instant::now() + SOON + SOON;
        while !holds()? {
            ensure(Instant::now() < until, format!("not within {} s: {what}", 2 * SOON.as_secs()))?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn main_pid(&self) -> Fact<u32> {
        self.show("MainPID")?.parse().map_err(text)
    }

    fn socket_first(&self) -> Fact {
        let said = self.shell(
            "systemctl reset-failed; systemctl daemon-reload && systemctl enable --now nexus-sidecar.socket 2>&1",
        )?;
        let states = self.shell("systemctl is-active nexus-sidecar.socket nexus-sidecar.service")?;
        ensure(states == "active\ninactive", format!("{states}; {said}"))?;
        let mode = self.shell(&format!("stat -c '%a %U:%G' {SOCKET}"))?;
        ensure(mode == "660 root:nexus-sidecar-clients", mode.clone())?;
        Ok(mode)
    }

    fn starts(&self) -> Fact {
        let began = Instant::now();
        self.client()?.still_works();
        let took = began.elapsed();
        let (state, status) = (self.show("ActiveState")?, self.show("StatusText")?);
        ensure(state == "active" && status.starts_with("serving"), format!("{state} {status}"))?;
        let lines = self.journal();
        let ready = lines.find("ready: nexus-sidecar").ok_or("the journal has no line about readiness")?;
        ensure(lines[ready..].contains("Started nexus-sidecar"), "systemd took it for started before it was ready")?;
        Ok(format!("{} ms from the connection to the first handler's end", took.as_millis()))
    }

    /// A bit of everything, and in the same process to the end.
    fn works(&self) -> Fact {
        let before = self.main_pid()?;
        let mut client = self.client()?;
        every_kind(&mut client);
        let stack = client.run(Run::source("const r = $ext.a.b(); return r + 1").grant(&["ext:a"]));
        ensure(client.resume(&stack.call().id, &json!(1)).value() == json!(2), "a resume of stack style")?;
        let state = client.create_state(&json!({"a": 1}));
        ensure(client.dispose_state(&state), "a resident state")?;
        for _ in 0..20 {
            self.client()?.start("return 'x'.repeat(1 << 20)");
        }
        ensure(client.metrics().contains("nexus_handler_executions_total"), "metrics")?;
        let cached = self.shell("ls /var/cache/nexus-sidecar/ | grep -c qjsc")?;
        ensure(cached.parse().is_ok_and(|n: u32| n > 0), format!("no handler was kept on disk: {cached}"))?;
        ensure(self.main_pid()? == before && self.show("NRestarts")? == "0", "it was restarted")?;
        Ok(format!("{cached} handlers on disk"))
    }

    fn audience(&self) -> Fact {
        let ping = |user: &str, group: &str| {
            self.shell(&format!(
                "setpriv --reuid={user} --regid=100 --groups={group} {PROGRAM} ping --connect {SOCKET} 2>&1; echo $?"
            ))
        };
        let group = self.shell("getent group nexus-sidecar-clients | cut -d: -f3")?;
        for (user, group, expected) in
            [(LISTED, group.as_str(), "0"), (UNLISTED, group.as_str(), "1"), (LISTED, "100", "1")]
        {
            let said = ping(user, group)?;
            ensure(said.ends_with(&format!("\n{expected}")), format!("user {user}, group {group}: {said}"))?;
        }
        let said = self.journal();
        ensure(said.contains(&format!("a connection of user {UNLISTED} ")), "the refusal is not in the journal")?;
        Ok(String::new())
    }

    fn hardened(&self) -> Fact {
        let pid = self.main_pid()?;
        let status = self.shell(&format!("cat /proc/{pid}/status"))?;
        for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t2"] {
            ensure(status.contains(line), format!("{line:?} is not in {status}"))?;
        }
        let uid = self.shell(&format!("stat -c %u /proc/{pid}"))?;
        ensure(
            uid.parse().is_ok_and(|uid: u32| (61184..65520).contains(&uid)),
            format!("user {uid} is not a dynamic one"),
        )?;
        // what a program would find that had taken the process over, but for the system calls that it may not make
        let inside = |script: &str| {
            self.shell(&format!("nsenter -t {pid} -m -n -i setpriv --reuid={uid} --clear-groups sh -c '{script}' 2>&1"))
        };
        for (script, expected) in [
            ("touch /usr/x /etc/x /x /root/x", "Read-only file system"),
            ("ls /proc | grep -c ^[0-9]", ""),
            ("ls /home/one", "No such file or directory"),
            ("ls /dev | tr \"\\n\" \" \"", "null"),
        ] {
            let said = inside(script)?;
            ensure(said.contains(expected), format!("{script}: {said}"))?;
        }
        let network = self.shell(&format!("nsenter -t {pid} -n grep : /proc/self/net/dev | cut -d: -f1"))?;
        ensure(network.trim() == "lo", format!("network: {network}"))?;
        let devices = inside("ls /dev/sda /dev/vda /dev/kmsg /dev/mem 2>&1 | grep -vc cannot")?;
        ensure(devices.starts_with('0'), format!("devices: {devices}"))?;
        let level = self.shell("systemd-analyze security --no-pager nexus-sidecar.service | tail -n 1")?;
        Ok(level.chars().filter(char::is_ascii).collect::<String>().trim().to_owned())
    }

    fn reloads(&self) -> Fact {
        let file = self.config.join("sidecar.toml");
        let (before, began) = (self.main_pid()?, self.now()?);
        fs::write(&file, "maxInstances = 4\nmaxEvents = 7\n").map_err(text)?;
        self.shell("systemctl reload nexus-sidecar.service")?;
        self.eventually("the change is told", || Ok(self.said_since(&began)?.contains("changed: maxEvents")))?;
        let mut client = self.client()?;
        let eight = "for (let i = 0; i < 8; i++) $emit('e', i)";
        let refused = client.run(Run::source(eight).grant(&["events:emit:*"]));
        ensure(refused.error().message.contains('7'), refused.error().message.clone())?;
        fs::write(&file, "maxInstances = 4\nmaxEvents = many\n").map_err(text)?;
        self.shell("systemctl reload nexus-sidecar.service")?;
        self.eventually("the refusal is told", || Ok(self.said_since(&began)?.contains("the old one stays")))?;
        client.still_works();
        fs::write(&file, "maxInstances = 4\n").map_err(text)?;
        ensure(self.main_pid()? == before, "it was restarted")?;
        Ok(String::new())
    }

    fn refuses(&self) -> Fact {
        let file = self.config.join("sidecar.toml");
        fs::write(&file, "maxInstances = 0\n").map_err(text)?;
        let began = self.now()?;
        self.shell("systemctl restart nexus-sidecar.service")?;
        let said = self.said_since(&began)?;
        ensure(said.contains("maxInstances = \"0\" (/etc/nexus-sidecar/sidecar.toml:1): must be 1 or more"), said)?;
        ensure(self.show("ExecMainStatus")? == "3", "the exit code is not 3")?;
        fs::write(&file, "maxInstances = 4\n").map_err(text)?;
        self.shell("systemctl stop nexus-sidecar.service nexus-sidecar.socket; systemctl reset-failed")?;
        self.shell("systemctl start nexus-sidecar.socket")?;
        self.client()?.still_works();
        Ok(String::new())
    }

    fn stops(&self) -> Fact {
        let mut client = self.client()?;
        let running = client.start(Run::source("for (let i = 0; i < 2e6; i++); return 'done'").timeout_ms(0));
        client.ping();
        self.shell("systemctl stop nexus-sidecar.service")?;
        ensure(client.segment(running).value() == json!("done"), "what was under way has no answer")?;
        let (result, code) = (self.show("Result")?, self.show("ExecMainStatus")?);
        ensure(result == "success" && code == "0", format!("{result} {code}"))?;
        self.client()?.still_works();
        Ok(String::new())
    }

    /// Waits for another process, and until it serves. How long each took: the second is the engine's start, and longer on
    /// a busy machine.
    fn replaced(&self, before: u32, began: Instant) -> Fact<(Duration, String)> {
        self.eventually("another process is started", || Ok(![0, before].contains(&self.main_pid()?)))?;
        let started = began.elapsed();
        self.eventually("it serves", || Ok(self.show("ActiveState")? == "active"))?;
        let told = format!("started after {} ms, ready after {} ms", started.as_millis(), began.elapsed().as_millis());
        self.client()?.still_works();
        Ok((started, told))
    }

    fn killed(&self) -> Fact {
        let (before, began) = (self.main_pid()?, Instant::now());
        self.shell(&format!("kill -9 {before}"))?;
        Ok(self.replaced(before, began)?.1)
    }

    fn frozen(&self) -> Fact {
        let (before, began) = (self.main_pid()?, Instant::now());
        self.shell(&format!("kill -STOP {before}"))?;
        let (took, told) = self.replaced(before, began)?;
        let journal = self.journal();
        ensure(journal.contains("Watchdog timeout (limit 10s)"), "it was not the watchdog")?;
        ensure(took <= Duration::from_secs(11), format!("it took {} ms", took.as_millis()))?;
        Ok(format!("{told}; WatchdogSec is 10 s"))
    }

    fn denied_is_death(&self) -> Fact {
        let strict = self.units.join("nexus-sidecar.service.d").join("strict.conf");
        fs::write(&strict, "[Service]\nSystemCallErrorNumber=kill\n").map_err(text)?;
        self.shell("systemctl daemon-reload; systemctl restart nexus-sidecar.service")?;
        let answer = self.show("SystemCallErrorNumber")?;
        ensure(answer != "1", "a denied call would still be answered with EPERM")?;
        self.works()?;
        self.shell("systemctl reload nexus-sidecar.service")?;
        self.client()?.still_works();
        self.shell("systemctl stop nexus-sidecar.service")?;
        ensure(self.show("Result")? == "success", self.show("Result")?)?;
        fs::remove_file(strict).map_err(text)?;
        self.shell("systemctl daemon-reload")
    }

    fn user(&self) -> Fact {
        // the machine has no PAM, by which a login would be told to it
        let drop_ins = self.units.join("user@.service.d");
        fs::create_dir(&drop_ins).map_err(text)?;
        let unpamed = "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n";
        fs::write(drop_ins.join("machine.conf"), unpamed).map_err(text)?;
        let manager = self.shell(&format!("systemctl daemon-reload; systemctl start user@{LISTED}.service"))?;
        let runtime = format!("/run/user/{LISTED}");
        let as_user = |words: &str| {
            self.shell(&format!(
                "setpriv --reuid={LISTED} --regid={LISTED} --clear-groups env HOME=/home/one XDG_RUNTIME_DIR={runtime} {words} 2>&1"
            ))
        };
        let units = "/home/one/.config/systemd/user";
        as_user(&format!("sh -c 'mkdir -p {units} && cp /etc/systemd/system/user/nexus-sidecar.* {units}/'"))?;
        as_user("systemctl --user daemon-reload")?;
        let said = as_user("systemctl --user start nexus-sidecar.socket")?;
        let ping = as_user(&format!("{PROGRAM} ping --connect {runtime}/nexus-sidecar/sidecar.sock"))?;
        let more = || as_user("journalctl --user --no-pager -n 20").unwrap_or_default();
        ensure(ping.contains("answered in"), format!("{manager} {said} {ping} {}", more()))?;
        let state = as_user("systemctl --user show -P ActiveState nexus-sidecar.service")?;
        ensure(state == "active", state)?;
        Ok(String::new())
    }
}
