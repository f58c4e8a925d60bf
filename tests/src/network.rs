//! A network of hosts on this machine for tests, which a test can worsen while it runs.
//!
//! Each host is a network namespace with one interface, whose frames a thread of this process carries to the others by
//! what is said of its link ([`wires`]); a host's clock may be ahead of the machine's, by a time namespace. The
//! namespaces have no names: they end with this process and the last that it has started in them, however that was, so
//! nothing is left behind and any number of tests can have networks at once. It refuses to reach anything else.

pub mod hall;
pub mod sent;
mod switch;
pub mod wires;

use crate::Component;
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::ffi::{OsStr, c_int};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use switch::Switch;
use wires::{Link, Traffic};

/// Tells the kernel which interface a descriptor of its tunnel driver is. Source: `linux/if_tun.h`, TUNSETIFF.
const BE_INTERFACE: Opcode = opcode::write::<c_int>(b'T', 202);
/// Whole Ethernet frames, with nothing before them. Source: `linux/if_tun.h`, IFF_TAP and IFF_NO_PI.
const FRAMES_ALONE: u16 = 0x0002 | 0x1000;
const TUNNELS: &str = "/dev/net/tun";
const INTERFACE: &str = "eth0";

/// Hosts that reach each other and nothing else.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    switch: Switch,
}

/// One of them.
#[derive(Debug)]
pub struct Host {
    namespace: File,
    /// By how much its clock is ahead of the machine's.
    ahead: Duration,
    pub address: Ipv4Addr,
}

/// What the kernel takes for the name and kind of an interface. Source: `netdevice(7)`, `struct ifreq`.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

impl Network {
    /// A network of so many hosts, 10.77.0.1 and on, whose losses follow `seed`; `None` where this machine can have
    /// none, after saying so.
    ///
    /// # Panics
    /// It cannot be made, or [`crate::REQUIRE_ALL`] is set and the machine can have none.
    #[must_use]
    pub fn of(hosts: usize, seed: u64) -> Option<Self> {
        let ip = Component::Namespaces.or_skip()?;
        let make = |index: usize| {
            let last = u8::try_from(index + 1).expect("a network of few hosts");
            let address = Ipv4Addr::new(10, 77, 0, last);
            let (namespace, frames) = apart(&ip, address).expect("a namespace can be made");
            let host = Host {
                namespace,
                ahead: Duration::ZERO,
                address,
            };
            (host, frames)
        };
        let (hosts, frames): (_, Vec<File>) = (0..hosts).map(make).unzip();
        let switch = Switch::start(frames, seed);
        Some(Self { hosts, switch })
    }

    /// A host by its number, from 0.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// Makes a host's link another from now on.
    pub fn set(&self, index: usize, link: Link) {
        self.switch.wires().set(index, link);
    }

    /// What has met a host's link so far.
    #[must_use]
    pub fn traffic(&self, index: usize) -> Traffic {
        self.switch.wires().traffic(index)
    }

    /// Puts a host's clock ahead of the machine's, for all that is started there from now on.
    pub fn set_clock_ahead(&mut self, index: usize, ahead: Duration) {
        self.hosts[index].ahead = ahead;
    }
}

impl Host {
    /// A program to be started on this host.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = self.namespace.as_raw_fd();
        command.arg(format!("--net=/proc/{}/fd/{namespace}", std::process::id()));
        if !self.ahead.is_zero() {
            // Where the kernel has moved the process into it already, this does nothing.
            command.arg("--time=/proc/self/ns/time_for_children");
            set_apart_clock(&mut command, self.ahead);
        }
        command.arg(program);
        command
    }

    /// Does something on this host, e.g. opens a socket, which then stays there.
    ///
    /// # Panics
    /// It panics itself, or cannot be brought there.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let acting = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                let moved = move_into_link_name_space(self.namespace.as_fd(), network);
                moved.expect("a thread can be moved into a namespace");
                act()
            });
            acting.join().expect("it acts without a panic")
        })
    }
}

/// Has the process begin with a monotonic clock of its own.
fn set_apart_clock(command: &mut Command, ahead: Duration) {
    let text = format!("monotonic {} {}\n", ahead.as_secs(), ahead.subsec_nanos());
    let set_apart = move || {
        // SAFETY: a time namespace shares no file descriptors, nor takes any away.
        unsafe { unshare_unsafe(UnshareFlags::NEWTIME) }?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let offsets = rustix::fs::open(c"/proc/self/timens_offsets", flags, Mode::empty())?;
        rustix::io::write(&offsets, text.as_bytes())?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls alone and allocates nothing.
    unsafe {
        command.pre_exec(set_apart);
    }
}

/// A network namespace, and the frames of its only interface; `ip`: the program that sets the interface up.
fn apart(ip: &Path, address: Ipv4Addr) -> io::Result<(File, File)> {
    let ip = ip.to_owned();
    // Threads that are there already stay where they are, and this one ends.
    let made = std::thread::spawn(move || {
        // SAFETY: a network namespace shares no file descriptors, nor takes any away.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        let frames = interface()?;
        let address = format!("{address}/24");
        for arguments in [
            &["link", "set", "lo", "up"] as &[&str],
            &["addr", "add", &address, "dev", INTERFACE],
            // Nothing is to be said on it that no test asks for.
            &["link", "set", INTERFACE, "addrgenmode", "none"],
            &["link", "set", INTERFACE, "up"],
        ] {
            let set = Command::new(&ip).args(arguments).status()?;
            if !set.success() {
                return Err(io::Error::other(format!("ip {arguments:?}: {set}")));
            }
        }
        Ok((File::open("/proc/thread-self/ns/net")?, frames))
    });
    made.join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that makes it died")))
}

/// The frames of an interface that is made in this thread's namespace.
fn interface() -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let frames = rustix::fs::open(TUNNELS, flags, Mode::empty())?;
    let mut asked = Interface {
        name: [0; 16],
        flags: FRAMES_ALONE,
        rest: [0; 22],
    };
    asked.name[..INTERFACE.len()].copy_from_slice(INTERFACE.as_bytes());
    // SAFETY: this request takes an `ifreq`, of which it reads the name and the flags.
    unsafe { ioctl(&frames, Setter::<BE_INTERFACE, Interface>::new(asked)) }?;
    Ok(frames.into())
}

#[cfg(test)]
mod tests;
