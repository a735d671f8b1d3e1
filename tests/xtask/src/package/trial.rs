//! The packages on machines that have nothing: roots made for it, in which a user's first minutes are done by hand. Needs root, and the
//! network once for Debian's own files; what is tried needs neither.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::debian::Contents;
use super::npm::{CLIENT, PLATFORM, copy_tree};
use super::root::{Mounted, Root};
use super::tree::{NAME, files_in};
use super::{Made, npm, single};
use crate::apt;
use crate::places::{Places, remove};
use crate::process::{cargo, quiet, shown};
use crate::stages::{Stages, note};
use crate::toolchain;

/// A version before every other, to upgrade from.
const BEFORE: &str = "0.0.0";

const HANDLER: &str = "return 6 * 7";

/// Somebody whom no list of users knows.
const FOREIGN_USER: u32 = 54_321;

/// Of the conditions of an export the first that holds counts, so types have to come before the file that they are of. Nothing runs when
/// it is installed.
const MANIFESTS: &str = "
const { exports: conditions } = require('@nexus/sidecar/package.json');
const visit = (of) => {
  if (typeof of !== 'object') return;
  const names = Object.keys(of);
  if (names.includes('types') && names[0] !== 'types') throw new Error(`types stand behind ${names[0]}`);
  if (names.includes('default') && names.at(-1) !== 'default') throw new Error(`${names.at(-1)} stands behind default`);
  Object.values(of).forEach(visit);
};
if (Object.keys(conditions).length < 2) throw new Error('there is nothing to look at');
visit(conditions);
for (const name of ['@nexus/sidecar', '@nexus/sidecar-linux-x64']) {
  const { scripts } = require(`${name}/package.json`);
  if (scripts !== undefined) throw new Error(`${name} has scripts: ${Object.keys(scripts)}`);
}
";

/// What is tried, and of what the version before is packed.
pub struct Trial<'a> {
    pub places: &'a Places,
    pub made: &'a Made,
    pub contents: Contents<'a>,
    pub out: &'a Path,
}

impl Trial<'_> {
    pub fn run(&self, stages: &mut Stages) -> Result<()> {
        stages.run("what is tried with", || {
            toolchain::ensure_packages(&["debootstrap", "busybox-static", "systemd", "systemd-container", "buildah"])
        })?;
        let work = self.out.join("trial");
        remove(&work)?;
        fs::create_dir_all(&work)?;
        fs::create_dir_all(self.out.join("before"))?;
        type Try<'a> = fn(&Trial<'a>, &Path) -> Result<()>;
        let tries: [(&str, &str, Try<'_>); 6] = [
            ("a root with only Node", "node", Self::with_node),
            ("a root with only Debian", "debian", Self::with_debian),
            ("a machine that runs systemd", "systemd", Self::with_systemd),
            ("a root with only busybox", "busybox", Self::with_busybox),
            ("a root that nobody may write", "read-only", Self::read_only),
            ("an image", "image", Self::image),
        ];
        for (name, folder, attempt) in tries {
            stages.run(name, || attempt(self, &work.join(folder)))?;
            // Some of them are large.
            remove(&work.join(folder))?;
        }
        remove(&work)
    }

    /// npm without a network: install, first program, examples, command, upgrade, uninstall.
    fn with_node(&self, path: &Path) -> Result<()> {
        let root = self.debian_root(path, Debian::Minimal)?;
        copy_tree(Path::new(&found("node")?), &root.inside("/usr/bin/node"))?;
        let npm_home = found("npm")?.canonicalize()?;
        let npm_home = npm_home.ancestors().find(|folder| folder.ends_with("npm")).context("npm has no folder")?;
        copy_tree(npm_home, &root.inside("/usr/lib/node_modules/npm"))?;
        for command in ["npm", "npx"] {
            std::os::unix::fs::symlink(
                format!("../lib/node_modules/npm/bin/{command}-cli.js"),
                root.inside(format!("/usr/bin/{command}")),
            )?;
        }
        let root = root.environment("HOME", "/root").environment("npm_config_offline", "true");
        let pristine = files_in(&root.path)?;
        let before =
            npm::pack(self.places, &self.out.join("before"), self.contents.tree, self.contents.notices, BEFORE)?;
        let project = root.inside("/home/project");
        fs::create_dir_all(&project)?;
        fs::write(project.join("package.json"), r#"{"private":true,"type":"module"}"#)?;
        let in_project = |line: &str| root.must(["/bin/sh", "-c", &format!("cd /home/project && {line}")], "");
        let install = |packages: &[PathBuf; 2], folder: &str| -> Result<Duration> {
            let to = root.inside(folder);
            fs::create_dir_all(&to)?;
            let mut names = Vec::new();
            for package in packages {
                let name = package.file_name().context("no name")?;
                fs::copy(package, to.join(name))?;
                names.push(format!("{folder}/{}", name.to_string_lossy()));
            }
            Ok(in_project(&format!("npm install --no-audit --no-fund {}", names.join(" ")))?.took)
        };
        let versions = || -> Result<String> { Ok(in_project("npm ls --all")?.out) };
        install(&before, "/packages-before")?;
        ensure!(versions()?.contains(&format!("{CLIENT}@{BEFORE}")), "the version before is not installed");
        let took = install(&self.made.npm, "/packages")?;
        for name in [CLIENT, PLATFORM] {
            ensure!(versions()?.contains(&format!("{name}@{}", self.contents.version)), "{name} is not upgraded");
        }
        let bytes = super::tree::bytes_in(&project.join("node_modules"))?;
        note(format!(
            "npm install, offline, over the version before: {:.1} s, {:.1} MB",
            took.as_secs_f64(),
            bytes as f64 / 1e6
        ));
        fs::write(project.join("manifests.cjs"), MANIFESTS)?;
        in_project("node manifests.cjs")?;
        fs::write(project.join("first.mjs"), self.first_program("client-node/README.md")?)?;
        let ended = in_project("node first.mjs")?;
        ensure!(ended.out.contains("Ada 3"), "the first program of the README prints {:?}", ended.out);
        note(format!("the first program: {:.2} s", ended.took.as_secs_f64()));
        self.examples(&project, &in_project)?;
        fs::write(project.join("h.js"), HANDLER)?;
        let ended = in_project("npx nexus-sidecar run h.js")?;
        ensure!(ended.out.starts_with("42"), "npx nexus-sidecar prints {:?}", ended.out);
        note(format!("npx nexus-sidecar run: {:.2} s", ended.took.as_secs_f64()));
        // Left out, as npm does it with --omit=optional: the command finds itself on the path that npx makes, and no program.
        let program = project.join("node_modules").join(PLATFORM);
        fs::rename(&program, root.inside("/aside"))?;
        let ended = root.run(["/bin/sh", "-c", "cd /home/project && npx nexus-sidecar --version"], "")?;
        let told = format!("What to do: npm i {PLATFORM}@{}", self.contents.version);
        ensure!(ended.code == Some(127) && ended.err.contains(&told), "without the program npx says {:?}", ended.err);
        note("npx without the package of the program: says what to do");
        fs::rename(root.inside("/aside"), &program)?;
        in_project(&format!("npm uninstall {CLIENT} {PLATFORM}"))?;
        self.uninstalled(&root, &pristine, &project)
    }

    /// Of an installation by npm, which has nothing done when it is taken away, nothing is left but the cache of its user, which
    /// README names.
    fn uninstalled(&self, root: &Root, pristine: &[PathBuf], project: &Path) -> Result<()> {
        let cache = root.inside("/root/.cache/nexus-sidecar");
        let mut left: Vec<_> = files_in(&root.path)?.into_iter().filter(|file| !pristine.contains(file)).collect();
        // What was put there by hand, and what npm keeps of its own work.
        let others = ["/packages", "/packages-before", "/root/.npm"].map(|folder| root.inside(folder));
        left.retain(|file| !others.iter().any(|folder| file.starts_with(folder)));
        left.retain(|file| !file.starts_with(project) || file.to_string_lossy().contains("nexus"));
        let (kept, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|file| file.starts_with(&cache));
        ensure!(left.is_empty(), "npm uninstall leaves {left:?}");
        let named = fs::read_to_string(self.places.root.join("README.md"))?.contains("rm -r ~/.cache/nexus-sidecar");
        ensure!(named, "README does not tell how the cache is removed");
        let bytes = super::tree::bytes_in(&cache)?;
        note(format!(
            "npm uninstall: nothing is left but the user's cache, {} files of {:.2} MB",
            kept.len(),
            bytes as f64 / 1e6
        ));
        Ok(())
    }

    /// The first JavaScript of a text.
    fn first_program(&self, file: &str) -> Result<String> {
        let text = fs::read_to_string(self.places.root.join(file))?;
        let rest = text.split_once("```js\n").context("no program")?.1;
        Ok(rest.split_once("```").context("a program without end")?.0.to_owned())
    }

    /// Each prints what it says that it prints.
    fn examples(&self, project: &Path, in_project: &dyn Fn(&str) -> Result<super::root::Ended>) -> Result<()> {
        let (mut count, mut took) = (0, Duration::ZERO);
        for file in files_in(&self.places.root.join("client-node/examples"))? {
            let name = file.file_name().context("no name")?.to_string_lossy().into_owned();
            let source = fs::read_to_string(&file)?;
            fs::write(project.join(&name), &source)?;
            let ended = in_project(&format!("node {name}"))?;
            let said: Vec<&str> =
                source.lines().filter_map(|line| line.strip_prefix("// prints ")).map(str::trim_end).collect();
            let printed: Vec<&str> = ended.out.lines().map(str::trim_end).collect();
            ensure!(said.is_empty() || said == printed, "{name} prints {printed:?}");
            (count, took) = (count + 1, took + ended.took);
        }
        ensure!(count >= 10, "there are {count} examples");
        note(format!("{count} examples: {:.1} s", took.as_secs_f64()));
        Ok(())
    }

    /// The Debian package: install, upgrade, which keeps the cache, unit, uninstall.
    fn with_debian(&self, path: &Path) -> Result<()> {
        let root = self.debian_root(path, Debian::Minimal)?;
        let listed = || -> Result<Vec<PathBuf>> {
            let mut files = files_in(&root.path)?;
            // What dpkg keeps of its own work.
            files.retain(|file| {
                !["var/lib/dpkg", "var/log", "var/cache/ldconfig"].iter().any(|own| file.starts_with(root.inside(own)))
            });
            Ok(files)
        };
        let pristine = listed()?;
        let before = self.debian_before()?;
        for (package, to) in [(&before, "/before.deb"), (&self.made.debian, "/package.deb")] {
            fs::copy(package, root.inside(to))?;
        }
        Self::on_a_full_disk(&root, "/package.deb")?;
        root.must(["dpkg", "-i", "/before.deb"], "")?;
        let (kept, settings) =
            (root.inside("/var/cache/nexus-sidecar/kept"), root.inside("/etc/nexus-sidecar/environment"));
        fs::create_dir_all(kept.parent().context("no parent")?)?;
        fs::write(&kept, "a cache")?;
        fs::write(&settings, "NEXUS_MAX_INSTANCES=3\n")?;
        let took = root.must(["dpkg", "-i", "--force-confold", "/package.deb"], "")?.took;
        ensure!(
            kept.exists() && fs::read_to_string(&settings)?.contains("=3"),
            "the upgrade does not keep cache and settings"
        );
        let ended = root.must(["nexus-sidecar", "run", "-"], HANDLER)?;
        ensure!(ended.out.starts_with("42"), "it prints {:?}", ended.out);
        note(format!(
            "dpkg -i over the version before: {:.1} s, {:.1} MB; first result {:.2} s",
            took.as_secs_f64(),
            super::tree::bytes_in(&root.inside("/usr/lib/nexus-sidecar"))? as f64 / 1e6,
            ended.took.as_secs_f64()
        ));
        root.must(["nexus-sidecar", "serve", "--config", "/etc/nexus-sidecar/sidecar.toml", "--check-config"], "")?;
        root.must(["getent", "group", "nexus-sidecar-clients"], "")?;
        self.pages_are_there(&root)?;
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").arg(format!("--root={}", root.path.display())).args(["--man=no", "--recursive-errors=no"]);
        quiet("verifying the unit", verify.args(["nexus-sidecar.service", "nexus-sidecar.socket"]))?;
        note("systemd-analyze verify: nothing to complain of");
        root.must(["dpkg", "--purge", NAME], "")?;
        if root.run(["getent", "group", "nexus-sidecar-clients"], "")?.code == Some(0) {
            bail!("the purge leaves the group");
        }
        for file in ["/before.deb", "/package.deb"] {
            remove(&root.inside(file))?;
        }
        let left: Vec<_> = listed()?.into_iter().filter(|file| !pristine.contains(file)).collect();
        // Both are copies that groupadd makes of files that were there.
        let left: Vec<_> = left.iter().filter(|file| !file.to_string_lossy().ends_with('-')).collect();
        ensure!(left.is_empty(), "the purge leaves {left:?}");
        note("dpkg --purge: nothing is left");
        Ok(())
    }

    /// What does not fit is not installed, and leaves nothing of itself.
    fn on_a_full_disk(root: &Root, package: &str) -> Result<()> {
        let tree = root.inside("/usr/lib/nexus-sidecar");
        fs::create_dir(&tree)?;
        let full = Root::of(&root.path).mounted("/usr/lib/nexus-sidecar", Mounted::Small);
        let ended = full.run(["dpkg", "-i", package], "")?;
        ensure!(ended.code != Some(0) && ended.err.contains("No space left on device"), "it says {:?}", ended.err);
        fs::remove_dir(&tree)?;
        ensure!(!root.inside("/usr/bin/nexus-sidecar").is_symlink(), "half of it is installed");
        let status = root.run(["dpkg-query", "-W", "-f=${db:Status-Status}", NAME], "")?;
        ensure!(!status.out.starts_with("installed"), "dpkg calls it {}", status.out);
        note("dpkg -i where there is no room: refused, and nothing of it is left");
        Ok(())
    }

    /// The manual, and completions that their shells take.
    fn pages_are_there(&self, root: &Root) -> Result<()> {
        let manual = root.must(["gzip", "-dc", "/usr/share/man/man1/nexus-sidecar.1.gz"], "")?.out;
        ensure!(manual.contains(".TH") && manual.contains(self.contents.version), "the manual is {manual:?}");
        let bash = "/usr/share/bash-completion/completions/nexus-sidecar";
        let completes = root.must(["bash", "-c", &format!(". {bash} && complete -p nexus-sidecar")], "")?.out;
        ensure!(completes.contains("nexus-sidecar"), "bash completes {completes:?}");
        for file in ["zsh/vendor-completions/_nexus-sidecar", "fish/vendor_completions.d/nexus-sidecar.fish"] {
            let text = fs::read_to_string(root.inside("/usr/share").join(file)).with_context(|| file.to_owned())?;
            ensure!(text.contains("nexus-sidecar") && text.contains("serve"), "{file} is {text:?}");
        }
        note("manual page and completions for bash, zsh and fish: there");
        Ok(())
    }

    /// The same under an earlier version.
    fn debian_before(&self) -> Result<PathBuf> {
        Contents { version: BEFORE, compression: "none", ..self.contents }.package(&self.out.join("before"))
    }

    /// The archive, unpacked by busybox.
    fn with_busybox(&self, path: &Path) -> Result<()> {
        let root = Root::new(path)?;
        fs::create_dir_all(root.inside("/bin"))?;
        fs::create_dir_all(root.inside("/opt"))?;
        fs::copy(found("busybox")?, root.inside("/bin/busybox"))?;
        fs::copy(&self.made.archive, root.inside("/archive.tar.xz"))?;
        let unpacked = root.must(["/bin/busybox", "tar", "-xJf", "/archive.tar.xz", "-C", "/opt"], "")?;
        let ended = root.must(["/opt/nexus-sidecar/bin/nexus-sidecar", "run", "-"], HANDLER)?;
        ensure!(ended.out.starts_with("42"), "it prints {:?}", ended.out);
        note(format!(
            "unpacked in {:.1} s, {:.1} MB; first result {:.2} s",
            unpacked.took.as_secs_f64(),
            super::tree::bytes_in(&root.inside("/opt/nexus-sidecar"))? as f64 / 1e6,
            ended.took.as_secs_f64()
        ));
        let engine = root.must(["/opt/nexus-sidecar/bin/nexus-sidecar", "engine"], "")?;
        ensure!(engine.out.contains("x86-64-v3, x86-64-v2"), "the engine has {}", engine.out);
        remove(&root.inside("/opt/nexus-sidecar"))?;
        note("removed with its folder: nothing is left");
        self.as_binstall_does(root)
    }

    /// One program is taken out of its archive, from where the manifest says that it is, and nothing else.
    fn as_binstall_does(&self, root: Root) -> Result<()> {
        let target = "x86_64-unknown-linux-musl";
        let [url, _, inside] = single::told_to_binstall(&self.places.root, self.contents.version, target)?;
        let archive = self.made.single.file_name().context("no name")?.to_string_lossy().into_owned();
        ensure!(url.ends_with(&format!("/{archive}")), "the manifest sends to {url}");
        fs::copy(&self.made.single, root.inside("/single.tar.xz"))?;
        root.must(["/bin/busybox", "tar", "-xJf", "/single.tar.xz", "-C", "/opt"], "")?;
        fs::rename(root.inside("/opt").join(inside), root.inside("/bin/nexus-sidecar"))?;
        fs::create_dir(root.inside("/home"))?;
        let root = root.environment("HOME", "/home");
        for when in ["first", "again"] {
            let ended = root.must(["nexus-sidecar", "run", "-"], HANDLER)?;
            ensure!(ended.out.starts_with("42"), "it prints {:?}", ended.out);
            note(format!("the single file, from its archive, {when}: {:.2} s", ended.took.as_secs_f64()));
        }
        Ok(())
    }

    /// As a container has it: nothing but the tree, which cannot be written, and a user without a name or a home.
    fn read_only(&self, path: &Path) -> Result<()> {
        let root = Root::new(path)?;
        root.put(&self.made.tree, "/usr/lib/nexus-sidecar")?;
        let root = root.read_only_as(FOREIGN_USER);
        let ended = root.must(["/usr/lib/nexus-sidecar/bin/nexus-sidecar", "run", "-"], HANDLER)?;
        ensure!(ended.out.starts_with("42"), "it prints {:?}", ended.out);
        note(format!("first result {:.2} s, as user {FOREIGN_USER}", ended.took.as_secs_f64()));
        Ok(())
    }

    /// The Debian package where systemd runs: `systemctl enable --now`, first request, upgrade, boot, purge.
    fn with_systemd(&self, path: &Path) -> Result<()> {
        let root = self.debian_root(path, Debian::Systemd)?;
        for (package, to) in [(&self.debian_before()?, "/before.deb"), (&self.made.debian, "/package.deb")] {
            fs::copy(package, root.inside(to))?;
        }
        let mut facts = cargo(&self.places.root);
        facts.args(["run", "--release", "--quiet", "-p", "nexus-tests", "--bin", "installed", "--"]).arg(path);
        shown(facts.args(["/before.deb", "/package.deb"]))
    }

    /// The image, built as the container file says, and run: read-only, as its user, with nothing but what is in it.
    fn image(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path)?;
        let buildah = |words: &[&str]| {
            let mut command = Command::new("buildah");
            // Nothing of this machine's own images, and no daemon.
            command.args(["--storage-driver", "vfs", "--root"]).arg(path.join("storage"));
            command.arg("--runroot").arg(path.join("run")).args(words);
            command
        };
        let file = self.places.root.join("sidecar/deploy/Containerfile");
        let mut build = buildah(&["build", "--isolation", "chroot", "-t", "nexus-sidecar", "-f"]);
        quiet("building an image", build.arg(file).arg(self.out))?;
        let container = quiet("making a container", &mut buildah(&["from", "--pull-never", "nexus-sidecar"]))?;
        let mounted = quiet("mounting it", &mut buildah(&["mount", container.trim()]))?;
        let root = Root::of(Path::new(mounted.trim()));
        let settings =
            quiet("asking for its settings", &mut buildah(&["inspect", "--type", "image", "nexus-sidecar"]))?;
        let settings: serde_json::Value = serde_json::from_str(&settings)?;
        let settings = &settings["OCIv1"]["config"];
        let user: u32 =
            settings["User"].as_str().and_then(|user| user.split(':').next()?.parse().ok()).context("no user")?;
        let entry = settings["Entrypoint"][0].as_str().context("the image has no entry point")?.to_owned();
        let bytes = super::tree::bytes_in(&root.path)?;
        // What a container's runtime mounts there.
        for folder in ["proc", "tmp"] {
            fs::create_dir_all(root.inside(folder))?;
        }
        let root = root.environment("NEXUS_CACHE_DIR", "none").read_only_as(user);
        let ended = root.must([entry.as_str(), "run", "-"], HANDLER)?;
        ensure!(ended.out.starts_with("42"), "it prints {:?}", ended.out);
        note(format!("{:.1} MB; first result {:.2} s, as user {user}", bytes as f64 / 1e6, ended.took.as_secs_f64()));
        quiet("removing it", &mut buildah(&["rm", "--all"]))?;
        quiet("removing the image", &mut buildah(&["rmi", "--all"])).map(drop)
    }

    /// Debian 12, made once.
    fn debian_root(&self, path: &Path, debian: Debian) -> Result<Root> {
        let (name, more) = match debian {
            Debian::Minimal => ("bookworm-minbase", None),
            Debian::Systemd => ("bookworm-systemd", Some("--include=systemd,systemd-sysv,dbus,procps")),
        };
        let kept = self.places.cache.join(format!("{name}.tar"));
        if !kept.is_file() {
            let work = self.places.workshop()?.scratch("bookworm")?;
            let mut bootstrap = Command::new("debootstrap");
            bootstrap.arg("--variant=minbase").args(more).arg("bookworm");
            quiet("making a Debian", bootstrap.arg(work.join("root")).arg(apt::debian_mirror()?))?;
            // What was downloaded is installed.
            remove(&work.join("root/var/cache/apt/archives"))?;
            let packed = work.join("root.tar");
            quiet("keeping it", Command::new("tar").arg("-cf").arg(&packed).arg("-C").arg(work.join("root")).arg("."))?;
            fs::rename(&packed, &kept)?;
            remove(&work)?;
        }
        fs::create_dir_all(path)?;
        quiet("unpacking a Debian", Command::new("tar").arg("-xf").arg(&kept).arg("-C").arg(path))?;
        Ok(Root::of(path))
    }
}

/// What there is beside what every Debian has.
#[derive(Clone, Copy)]
enum Debian {
    Minimal,
    Systemd,
}

/// A program on the search path.
fn found(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("there is no PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    let found = places.find(|path| path.is_file()).with_context(|| format!("{program} is not on the PATH"))?;
    Ok(found.canonicalize()?)
}
