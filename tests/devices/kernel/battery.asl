DefinitionBlock ("", "SSDT", 2, "LAVOLT", "BATTERY", 1)
{
    External (\_SB.CPUS.C000, DeviceObj)
    Scope (\_SB)
    {
        // Written by the test through the file that backs the guest's memory.
        OperationRegion (LVMM, SystemMemory, 0x06000000, 0x40)
        Field (LVMM, DWordAcc, NoLock, Preserve)
        {
            STAT, 32,   // 1 discharging, 2 charging
            RATE, 32,   // mW
            REMN, 32,   // mWh
            VOLT, 32,   // mV
            ACON, 32,
            FULL, 32,   // mWh
            PRES, 32
        }
        Device (BAT0)
        {
            Name (_HID, EisaId ("PNP0C0A"))
            Name (_UID, 1)
            Method (_STA, 0) { If (PRES) { Return (0x1F) } Return (0x0F) }
            Method (_BIF, 0)
            {
                Local0 = Package (13) { 0, 50000, 50000, 1, 11100, 2500, 1000, 10, 10, "LV1", "1", "LION", "LAVOLTA" }
                Local0[2] = FULL
                Return (Local0)
            }
            Method (_BST, 0)
            {
                Local0 = Package (4) { 0, 0, 0, 0 }
                Local0[0] = STAT
                Local0[1] = RATE
                Local0[2] = REMN
                Local0[3] = VOLT
                Return (Local0)
            }
            Name (_PCL, Package () { \_SB })
        }
        Device (ADP1)
        {
            Name (_HID, "ACPI0003")
            Name (_UID, 1)
            Method (_PSR, 0) { Return (ACON) }
            Method (_STA, 0) { Return (0x0F) }
            Name (_PCL, Package () { \_SB })
        }
    }
    Scope (\_SB.CPUS.C000)
    {
        // The scratch register of the second serial port keeps what is written to it.
        Name (_PCT, Package ()
        {
            ResourceTemplate () { Register (SystemIO, 8, 0, 0x2FF) },
            ResourceTemplate () { Register (SystemIO, 8, 0, 0x2FF) }
        })
        Name (_PSS, Package ()
        {
            Package () { 1400, 1000, 10, 10, 3, 3 },
            Package () { 800, 500, 10, 10, 2, 2 },
            Package () { 400, 200, 10, 10, 1, 1 }
        })
        Method (_PPC, 0) { Return (0) }
    }
}
