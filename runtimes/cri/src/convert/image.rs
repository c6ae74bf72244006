//! Images, credentials, and the file systems that hold them.

use k8s_cri::v1 as wire;
use wherry_runtimes as plain;

use super::{Convert, list, map};

impl Convert<plain::ImageSpec> for wire::ImageSpec {
    fn convert(self) -> plain::ImageSpec {
        plain::ImageSpec {
            image: self.image,
            annotations: map(self.annotations),
            user_specified_image: self.user_specified_image,
            runtime_handler: self.runtime_handler,
        }
    }
}

impl Convert<wire::ImageSpec> for plain::ImageSpec {
    fn convert(self) -> wire::ImageSpec {
        wire::ImageSpec {
            image: self.image,
            annotations: map(self.annotations),
            user_specified_image: self.user_specified_image,
            runtime_handler: self.runtime_handler,
        }
    }
}

impl Convert<plain::Image> for wire::Image {
    fn convert(self) -> plain::Image {
        plain::Image {
            id: self.id,
            repo_tags: self.repo_tags,
            repo_digests: self.repo_digests,
            size: self.size,
            uid: self.uid.map(|v| v.value),
            username: self.username,
            spec: self.spec.map(Convert::convert),
            pinned: self.pinned,
        }
    }
}

impl Convert<wire::Image> for plain::Image {
    fn convert(self) -> wire::Image {
        wire::Image {
            id: self.id,
            repo_tags: self.repo_tags,
            repo_digests: self.repo_digests,
            size: self.size,
            uid: self.uid.map(|value| wire::Int64Value { value }),
            username: self.username,
            spec: self.spec.map(Convert::convert),
            pinned: self.pinned,
        }
    }
}

impl Convert<plain::AuthConfig> for wire::AuthConfig {
    fn convert(self) -> plain::AuthConfig {
        plain::AuthConfig {
            username: self.username,
            password: self.password,
            auth: self.auth,
            server_address: self.server_address,
            identity_token: self.identity_token,
            registry_token: self.registry_token,
        }
    }
}

impl Convert<wire::AuthConfig> for plain::AuthConfig {
    fn convert(self) -> wire::AuthConfig {
        wire::AuthConfig {
            username: self.username,
            password: self.password,
            auth: self.auth,
            server_address: self.server_address,
            identity_token: self.identity_token,
            registry_token: self.registry_token,
        }
    }
}

impl Convert<plain::FilesystemIdentifier> for wire::FilesystemIdentifier {
    fn convert(self) -> plain::FilesystemIdentifier {
        plain::FilesystemIdentifier { mountpoint: self.mountpoint }
    }
}

impl Convert<wire::FilesystemIdentifier> for plain::FilesystemIdentifier {
    fn convert(self) -> wire::FilesystemIdentifier {
        wire::FilesystemIdentifier { mountpoint: self.mountpoint }
    }
}

impl Convert<plain::FilesystemUsage> for wire::FilesystemUsage {
    fn convert(self) -> plain::FilesystemUsage {
        plain::FilesystemUsage {
            timestamp: self.timestamp,
            fs_id: self.fs_id.unwrap_or_default().convert(),
            used_bytes: self.used_bytes.map(|v| v.value),
            inodes_used: self.inodes_used.map(|v| v.value),
        }
    }
}

impl Convert<wire::FilesystemUsage> for plain::FilesystemUsage {
    fn convert(self) -> wire::FilesystemUsage {
        wire::FilesystemUsage {
            timestamp: self.timestamp,
            fs_id: Some(self.fs_id.convert()),
            used_bytes: self.used_bytes.map(|value| wire::UInt64Value { value }),
            inodes_used: self.inodes_used.map(|value| wire::UInt64Value { value }),
        }
    }
}

impl Convert<plain::ImageFsInfoResponse> for wire::ImageFsInfoResponse {
    fn convert(self) -> plain::ImageFsInfoResponse {
        plain::ImageFsInfoResponse {
            image_filesystems: list(self.image_filesystems),
            container_filesystems: list(self.container_filesystems),
        }
    }
}

impl Convert<wire::ImageFsInfoResponse> for plain::ImageFsInfoResponse {
    fn convert(self) -> wire::ImageFsInfoResponse {
        wire::ImageFsInfoResponse {
            image_filesystems: list(self.image_filesystems),
            container_filesystems: list(self.container_filesystems),
        }
    }
}
