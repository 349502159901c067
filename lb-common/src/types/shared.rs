//! What all values in maps have in common.

/// A fixed-size value that crosses the kernel boundary as plain bytes.
pub trait Shared: Copy + 'static {
    /// Exactly as many bytes as the type has.
    type Bytes: Copy + 'static;
    fn to_bytes(self) -> Self::Bytes;
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

impl Shared for u64 {
    type Bytes = [u8; size_of::<u64>()];
    #[inline]
    fn to_bytes(self) -> Self::Bytes {
        self.to_ne_bytes()
    }
    #[inline]
    fn from_bytes(bytes: Self::Bytes) -> Self {
        Self::from_ne_bytes(bytes)
    }
}
