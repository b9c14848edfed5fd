//! `console` on a terminal: raw while it lasts, and as before afterwards.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::server::Server;
use crate::virtctl::{DEADLINE, on};

struct OnTerminal {
    server: Server,
    keyboard: File,
    terminal: OwnedFd,
    before: nix::sys::termios::Termios,
    console: Child,
}

impl OnTerminal {
    /// Connects, and waits until the terminal is raw.
    async fn connect() -> Self {
        let server = Server::start("running");
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        assert!(before.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        let mut console = on(&server.socket(), &["console", "v1"]);
        console.stdin(Stdio::from(pty.slave.try_clone().unwrap())).stdout(Stdio::null()).stderr(Stdio::null());
        let console = console.spawn().unwrap();
        let this = Self { server, keyboard: pty.master.into(), terminal: pty.slave, before, console };
        let raw = || !this.flags().intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        wait_until("the terminal is raw", raw).await;
        this
    }

    fn flags(&self) -> LocalFlags {
        tcgetattr(&self.terminal).unwrap().local_flags
    }

    async fn ended(mut self) -> (Option<i32>, Server) {
        let status = timeout(DEADLINE, self.console.wait()).await.expect("the console ends").unwrap();
        assert_eq!(tcgetattr(&self.terminal).unwrap(), self.before, "the terminal is as before");
        (status.code(), self.server)
    }
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn keys_go_to_the_guest_until_the_escape() {
    let mut on_terminal = OnTerminal::connect().await;
    // Ctrl+C is the guest's; what is typed with the escape and before it, too.
    on_terminal.keyboard.write_all(b"ls\r\x03").unwrap();
    wait_until("the guest has the keys", || on_terminal.server.world.lock().unwrap().told == b"ls\r\x03").await;
    on_terminal.keyboard.write_all(b"x\x1dy").unwrap();
    let (code, server) = on_terminal.ended().await;
    assert_eq!(code, Some(0));
    wait_until("the last key has come", || server.world.lock().unwrap().told == b"ls\r\x03x").await;
}

#[tokio::test]
async fn signals_leave_the_terminal_as_it_was() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGQUIT, 131)]
    {
        let on_terminal = OnTerminal::connect().await;
        let pid = i32::try_from(on_terminal.console.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        assert_eq!(on_terminal.ended().await.0, Some(code), "{signal}");
    }
}
