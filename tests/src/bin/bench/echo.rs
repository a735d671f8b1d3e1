//! The floor: 200 bytes to another process and back, over the same kind of socket that a sidecar listens on.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nexus_tests::bench::Sample;
use nexus_tests::eventually;
use nexus_tests::temp::TempDir;

pub const MESSAGE_BYTES: usize = 200;

/// Echoes every connection in turn, for ever.
pub fn serve(path: &Path) -> ! {
    let listener = UnixListener::bind(path).expect("the echo server can listen");
    let mut buffer = [0; 4096];
    loop {
        let (mut stream, _) = listener.accept().expect("a connection");
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
    }
}

/// This program again, as the echo server.
pub struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let dir = TempDir::new();
        let program = std::env::current_exe().expect("this program has a path");
        let child =
            Command::new(program).arg("echo-server").arg(dir.join("echo.sock")).spawn().expect("an echo server");
        let server = Self { child, dir };
        eventually("the echo server listens", Duration::from_secs(10), || UnixStream::connect(server.path()).is_ok());
        server
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join("echo.sock")
    }

    /// Round trips, one at a time.
    pub fn measure(&self, count: usize) -> Sample {
        let mut stream = UnixStream::connect(self.path()).expect("the echo server is there");
        let message = [7; MESSAGE_BYTES];
        let mut back = [0; MESSAGE_BYTES];
        Sample::of(count / 5, count, || {
            stream.write_all(&message).expect("a write");
            stream.read_exact(&mut back).expect("an echo");
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
