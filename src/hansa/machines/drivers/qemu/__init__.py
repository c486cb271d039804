"""Machines in QEMU, as an ordinary user: full fidelity, at the speed of KVM where it works."""
