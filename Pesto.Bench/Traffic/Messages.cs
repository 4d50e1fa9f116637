using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>An array of struct mmsghdr with a buffer, an address and room for one control message each, for recvmmsg and sendmmsg.</summary>
sealed unsafe class Messages
{
    const int ControlSize = 32;

    [StructLayout(LayoutKind.Sequential)]
    struct IoVector
    {
        public byte* Base;
        public nuint Length;
    }

    [StructLayout(LayoutKind.Sequential)]
    struct Message
    {
        public SocketAddress* Name;
        public uint NameLength;
        public IoVector* Vectors;
        public nuint VectorCount;
        public byte* Control;
        public nuint ControlLength;
        public long Flags;
        public uint Transferred;
    }

    readonly int size;
    readonly Message* messages;
    readonly IoVector* vectors;
    readonly SocketAddress* names;
    readonly byte* buffers;
    readonly byte* controls;

    public Messages(int count, int size)
    {
        this.Count = count;
        this.size = size;
        this.messages = (Message*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(Message));
        this.vectors = (IoVector*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(IoVector));
        this.names = (SocketAddress*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(SocketAddress));
        this.buffers = (byte*)NativeMemory.AllocZeroed((nuint)count, (nuint)size);
        this.controls = (byte*)NativeMemory.AllocZeroed((nuint)count, ControlSize);
        for (int i = 0; i < count; i++)
        {
            this.vectors[i] = new() { Base = this.buffers + ((nint)i * size), Length = (nuint)size };
            this.messages[i].Vectors = this.vectors + i;
            this.messages[i].VectorCount = 1;
        }
    }

    public int Count { get; }

    /// <summary>How many datagrams were received, or a negative number.</summary>
    public int Receive(int fd, bool withControl)
    {
        for (int i = 0; i < this.Count; i++)
        {
            this.messages[i].Name = this.names + i;
            this.messages[i].NameLength = (uint)sizeof(SocketAddress);
            this.messages[i].Control = withControl ? this.controls + (i * ControlSize) : null;
            this.messages[i].ControlLength = withControl ? ControlSize : 0u;
            this.vectors[i].Length = (nuint)this.size;
        }

        return Libc.recvmmsg(fd, this.messages, (uint)this.Count, Kernel.MSG_DONTWAIT, null);
    }

    public uint Length(int i) => this.messages[i].Transferred;

    /// <summary>The size of the datagrams that the kernel put together into this one (UDP_GRO), or its own length.</summary>
    public uint SegmentSize(int i)
    {
        // struct cmsghdr: u64 length, int level, int type, then the value.
        byte* control = this.controls + (i * ControlSize);
        bool coalesced = this.messages[i].ControlLength >= 20 && *(int*)(control + 8) == Kernel.SOL_UDP && *(int*)(control + 12) == Kernel.UDP_GRO;
        return coalesced ? *(uint*)(control + 16) : this.Length(i);
    }

    /// <summary>Sends the first <paramref name="count"/> received datagrams back to where they came from.</summary>
    public void SendBack(int fd, int count)
    {
        for (int i = 0; i < count; i++)
        {
            this.vectors[i].Length = this.messages[i].Transferred;
            this.messages[i].Control = null;
            this.messages[i].ControlLength = 0;
        }

        for (int sent = 0; sent < count;)
        {
            int n = Libc.sendmmsg(fd, this.messages + sent, (uint)(count - sent), 0);
            sent += n > 0 ? n : 1;
        }
    }

    /// <summary>Sends all of them, full, by a connected socket.</summary>
    public int SendAll(int fd)
    {
        for (int i = 0; i < this.Count; i++)
        {
            this.messages[i].Name = null;
            this.messages[i].NameLength = 0;
        }

        return Libc.sendmmsg(fd, this.messages, (uint)this.Count, 0);
    }
}
