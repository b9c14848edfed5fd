//! The webhooks: which there are, and under which names and paths clients and the API server know them.

/// A webhook of virt-api, or of virt-operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is what its name says")]
pub enum Webhook {
    VmMutate,
    VmValidate,
    VmiMutate,
    VmiValidateCreate,
    VmiValidateUpdate,
    MigrationMutateCreate,
    MigrationValidateCreate,
    MigrationValidateUpdate,
    ReplicaSetValidate,
    PoolValidate,
    PresetValidate,
    InstancetypeValidate,
    ClusterInstancetypeValidate,
    PreferenceValidate,
    ClusterPreferenceValidate,
    StatusValidate,
    MigrationPolicyValidate,
    KubeVirtValidateCreate,
    KubeVirtValidateUpdate,
    KubeVirtValidateDelete,
}

impl Webhook {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::VmMutate,
        Self::VmValidate,
        Self::VmiMutate,
        Self::VmiValidateCreate,
        Self::VmiValidateUpdate,
        Self::MigrationMutateCreate,
        Self::MigrationValidateCreate,
        Self::MigrationValidateUpdate,
        Self::ReplicaSetValidate,
        Self::PoolValidate,
        Self::PresetValidate,
        Self::InstancetypeValidate,
        Self::ClusterInstancetypeValidate,
        Self::PreferenceValidate,
        Self::ClusterPreferenceValidate,
        Self::StatusValidate,
        Self::MigrationPolicyValidate,
        Self::KubeVirtValidateCreate,
        Self::KubeVirtValidateUpdate,
        Self::KubeVirtValidateDelete,
    ];

    /// The webhook that is served at a path.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|webhook| webhook.path() == path)
    }

    /// Where it is served.
    pub const fn path(self) -> &'static str {
        self.names().1
    }

    /// Its name, which the API server puts before each of its refusals.
    pub const fn name(self) -> &'static str {
        self.names().0
    }

    /// Whether it changes objects; the others only refuse them.
    pub const fn mutates(self) -> bool {
        matches!(self, Self::VmMutate | Self::VmiMutate | Self::MigrationMutateCreate)
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::VmMutate => ("virtualmachines-mutator.kubevirt.io", "/virtualmachines-mutate"),
            Self::VmValidate => ("virtualmachine-validator.kubevirt.io", "/virtualmachines-validate"),
            Self::VmiMutate => ("virtualmachineinstances-mutator.kubevirt.io", "/virtualmachineinstances-mutate"),
            Self::VmiValidateCreate => {
                ("virtualmachineinstances-create-validator.kubevirt.io", "/virtualmachineinstances-validate-create")
            }
            Self::VmiValidateUpdate => {
                ("virtualmachineinstances-update-validator.kubevirt.io", "/virtualmachineinstances-validate-update")
            }
            Self::MigrationMutateCreate => ("migrations-mutator.kubevirt.io", "/migration-mutate-create"),
            Self::MigrationValidateCreate => ("migration-create-validator.kubevirt.io", "/migration-validate-create"),
            Self::MigrationValidateUpdate => ("migration-update-validator.kubevirt.io", "/migration-validate-update"),
            Self::ReplicaSetValidate => {
                ("virtualmachinereplicaset-validator.kubevirt.io", "/virtualmachinereplicaset-validate")
            }
            Self::PoolValidate => ("virtualmachinepool-validator.kubevirt.io", "/virtualmachinepool-validate"),
            Self::PresetValidate => ("virtualmachinepreset-validator.kubevirt.io", "/vmipreset-validate"),
            Self::InstancetypeValidate => (
                "virtualmachineinstancetype-validator.instancetype.kubevirt.io",
                "/virtualmachineinstancetypes-validate",
            ),
            Self::ClusterInstancetypeValidate => (
                "virtualmachineclusterinstancetype-validator.instancetype.kubevirt.io",
                "/virtualmachineclusterinstancetypes-validate",
            ),
            Self::PreferenceValidate => {
                ("virtualmachinepreference-validator.instancetype.kubevirt.io", "/virtualmachinepreferences-validate")
            }
            Self::ClusterPreferenceValidate => (
                "virtualmachineclusterpreference-validator.instancetype.kubevirt.io",
                "/virtualmachineclusterpreferences-validate",
            ),
            Self::StatusValidate => ("kubevirt-crd-status-validator.kubevirt.io", "/status-validate"),
            Self::MigrationPolicyValidate => {
                ("migration-policy-validator.kubevirt.io", "/migration-policy-validate-create")
            }
            Self::KubeVirtValidateCreate => ("kubevirt-create-validator.kubevirt.io", "/kubevirt-validate-create"),
            Self::KubeVirtValidateUpdate => ("kubevirt-update-validator.kubevirt.io", "/kubevirt-validate-update"),
            Self::KubeVirtValidateDelete => ("kubevirt-validator.kubevirt.io", "/kubevirt-validate-delete"),
        }
    }
}
