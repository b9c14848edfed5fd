#!/bin/sh
# Cargo's wrapper of rustc for the workspace's own crates: links the program virt-operator statically and everything
# else as ever. With it one build serves static and dynamic programs; a build of its own would compile every
# dependency once more.
case " $* " in
*" --crate-name virt_operator "*" --crate-type bin "*)
    set -- "$@" -C target-feature=+crt-static
    ;;
esac
exec "$@"
