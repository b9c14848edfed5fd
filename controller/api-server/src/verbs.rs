//! The subresources that are served: one table, from which come paths, discovery, OpenAPI and authorization.

use axum::http::Method;

/// The API group of the subresources.
pub const GROUP: &str = "subresources.kubevirt.io";
/// Its versions, the preferred one first. They are the same.
pub const VERSIONS: [&str; 2] = ["v1", "v1alpha3"];

/// What a subresource belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A VirtualMachine.
    Vm,
    /// A VirtualMachineInstance.
    Vmi,
}

impl Kind {
    /// The resource's name in paths.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Vm => "virtualmachines",
            Self::Vmi => "virtualmachineinstances",
        }
    }

    /// The kind as errors name it.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Vm => "virtualmachine",
            Self::Vmi => "virtualmachineinstance",
        }
    }
}

/// What a subresource does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// The screen, as a stream of RFB.
    Vnc,
    /// A picture of the screen.
    VncScreenshot,
    /// The serial console, as a stream.
    Console,
    /// Stops the guest's CPUs.
    Pause,
    /// Lets them go on.
    Unpause,
    /// Resets the machine.
    Reset,
    /// Asks the guest to reboot.
    SoftReboot,
    /// Starts a VM.
    Start,
    /// Stops it.
    Stop,
    /// Stops it and starts it again.
    Restart,
    /// What the guest agent says of the guest.
    GuestOsInfo,
    /// Users who are logged in.
    UserList,
    /// File systems.
    FilesystemList,
}

impl Verb {
    /// All of them, in the order in which discovery lists them.
    pub const ALL: [Self; 13] = [
        Self::Vnc,
        Self::VncScreenshot,
        Self::Console,
        Self::Pause,
        Self::Unpause,
        Self::Reset,
        Self::SoftReboot,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::GuestOsInfo,
        Self::UserList,
        Self::FilesystemList,
    ];

    /// The subresource's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vnc => "vnc",
            Self::VncScreenshot => "vnc/screenshot",
            Self::Console => "console",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Reset => "reset",
            Self::SoftReboot => "softreboot",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::GuestOsInfo => "guestosinfo",
            Self::UserList => "userlist",
            Self::FilesystemList => "filesystemlist",
        }
    }

    /// What it belongs to.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Start | Self::Stop | Self::Restart => Kind::Vm,
            Self::Vnc
            | Self::VncScreenshot
            | Self::Console
            | Self::Pause
            | Self::Unpause
            | Self::Reset
            | Self::SoftReboot
            | Self::GuestOsInfo
            | Self::UserList
            | Self::FilesystemList => Kind::Vmi,
        }
    }

    /// How it is called.
    pub const fn method(self) -> Method {
        match self {
            Self::Vnc
            | Self::VncScreenshot
            | Self::Console
            | Self::GuestOsInfo
            | Self::UserList
            | Self::FilesystemList => Method::GET,
            Self::Pause | Self::Unpause | Self::Reset | Self::SoftReboot | Self::Start | Self::Stop | Self::Restart => {
                Method::PUT
            }
        }
    }

    /// The verb that a user needs the right to.
    pub fn access(self) -> &'static str {
        if self.method() == Method::GET { "get" } else { "update" }
    }

    /// The subresource of that name.
    pub fn of(plural: &str, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.kind().plural() == plural && verb.name() == name)
    }
}
