namespace Pesto.Linux;

/// <summary>struct nlattr: length and type, 16 bits each, then the value, padded to 4 bytes (netlink(7)).</summary>
static unsafe class NetlinkAttribute
{
    const int HeadSize = 4;

    /// <summary>The value of an attribute of a message, or null.</summary>
    /// <param name="start">Where attributes begin: behind the fixed part.</param>
    /// <param name="least">How long the value must be, in bytes.</param>
    public static byte* Find(byte* message, int size, int start, ushort type, int least)
    {
        for (int at = start; at + HeadSize <= size;)
        {
            int length = Math.Max((int)*(ushort*)(message + at), HeadSize);
            if (*(ushort*)(message + at + 2) == type)
                return length - HeadSize >= least && at + length <= size ? message + at + HeadSize : null;
            at += (length + 3) & ~3;
        }

        return null;
    }
}
