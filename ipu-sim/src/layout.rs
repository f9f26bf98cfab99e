//! Where the elements of a tensor lie on the tiles of one IPU.
